# Takes the code out of the comments of headers, as functions for the compiler:
#   awk -f extract.awk octet/nn/module.h ... > snippets.inc
#
# The rule for comments in public headers (octet/**/*.h but not *_impl.h):
#  - A comment line with exactly three spaces after its // starts a block of code. The block is that line and all that
#    follow it with three spaces or more. It ends at any other line, so an empty // divides two blocks.
#  - Text that is no code (lists, tables, formulas, printed output) has two spaces. Lines with more spaces that follow it
#    belong to it.
#  - Four spaces or more after any other line are an error: nobody could tell which of the two it is.
#  - A block whose first line starts with struct, class, using or OCTET_ is compiled at namespace scope, one that starts
#    with `template <>` (a specialization) outside all namespaces, and all others are each the body of a function.
#
# Blocks see `using namespace octet` and the names of fixtures.h. Errors of the compiler name the header and its line.

function end_block() {
  if (kind == "function") print "}"
  if (kind == "function" || kind == "namespace") print "}"
  if (kind != "text") kind = ""
}

function fail(what) {
  printf "%s:%d: %s: %s\n", FILENAME, FNR, what, $0 > "/dev/stderr"
  failed = 1
}

FNR == 1 { end_block(); kind = "" }

!/^[ \t]*\/\/  / { end_block(); kind = ""; next }

{
  code = $0
  sub(/^[ \t]*\/\//, "", code)
  match(code, /^ */)
  spaces = RLENGTH
}

spaces == 2 { end_block(); kind = "text"; next }
kind == "text" && spaces > 3 { next }
kind == "text" || kind == "" {
  if (spaces > 3) { fail("an indented comment that is neither code (3 spaces) nor follows text (2 spaces)"); next }
  code = substr(code, 4)
  ++blocks
  if (code ~ /^template <>/) kind = "global"
  else if (code ~ /^(struct|class|using|OCTET_)/) kind = "namespace"
  else kind = "function"
  if (kind != "global") printf "namespace octet::snippets::block_%d {\n", blocks
  if (kind == "function") print "void body() {"
  printf "#line %d \"%s\"\n", FNR, FILENAME
  print code
  next
}
{ print substr(code, 4) }

END {
  end_block()
  exit failed
}
