// The code of all header comments (extract.awk), for the compiler alone.
#include "tests/headers/fixtures.h"
#include "octet/base/progress.h"
#include "octet/quant/workflow/findings.h"

#include "snippets.inc"  // generated
