// The code of all header comments (extract.awk), for the compiler alone.
#include "octet/base/progress.h"
#include "octet/quant/workflow/findings.h"
#include "tests/headers/fixtures.h"

#include "snippets.inc"  // generated
