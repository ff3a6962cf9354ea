# Comments in front of declarations, for Doxygen: `// text` becomes `/// text`; the first one of a header is about the file.
# Lines of code (three blanks) are indented as Markdown wants it; elsewhere characters that mean something to Doxygen are
# escaped.
/^#pragma once/ { expect_file = 1 }
/^[ \t]*\/\/( |$)/ {
  match($0, /^[ \t]*/)
  blanks = substr($0, 1, RLENGTH)
  text = substr($0, RLENGTH + 3)
  if (expect_file) print "/// \\file"
  expect_file = 0
  is_code = text ~ /^   /
  if (is_code && !in_code) print blanks "///"
  if (is_code) text = "     " text
  else gsub(/[\\@&$#<>%"]/, "\\\\&", text)
  in_code = is_code
  print blanks "///" text
  next
}
{ in_code = 0; print }
