// The opcodes: Python's Lib/pickletools.py describes them.
#include <algorithm>
#include <bit>

#include "octet/base/check_impl.h"
#include "octet/io/pickle_impl.h"

namespace octet::pickle {

const char* kind_name(Kind kind) {
  switch (kind) {
    case Kind::none:
      return "None";
    case Kind::boolean:
      return "a bool";
    case Kind::integer:
    case Kind::big:
      return "an int";
    case Kind::real:
      return "a float";
    case Kind::text:
      return "a str";
    case Kind::bytes:
      return "bytes";
    case Kind::list:
      return "a list or tuple";
    case Kind::dict:
      return "a dict";
    case Kind::global:
      return "a function or class";
    case Kind::call:
      return "an object";
    case Kind::persistent:
      return "a storage";
  }
  return "an object";
}

class Machine {
 public:
  Machine(std::string_view bytes, const std::string& where, const CheckGlobal& check)
      : bytes_(bytes), where_(where), check_(check) {}

  Document run(size_t* used) {
    if (bytes_.empty() || byte(0) != 0x80) damaged("it does not begin as one of protocol 2 to 5");
    for (size_t opcodes = 0;; ++opcodes) {
      if (opcodes == kMaxOpcodes) beyond("opcodes", kMaxOpcodes);
      begin_ = at_;
      const auto opcode = static_cast<uint8_t>(take(1)[0]);
      if (opcode == '.') break;
      step(opcode);
    }
    document_.root_ = pop();
    if (!stack_.empty() || !marks_.empty()) damaged("it ends with more than one value");
    if (used) *used = at_;
    return std::move(document_);
  }

 private:
  [[noreturn]] void damaged(const std::string& what) const {
    OCTET_FAIL(corrupt, "{}: the pickle is damaged: at byte {}: {}; copy or save the file again",
               where_, begin_, what);
  }
  [[noreturn]] void beyond(const char* what, size_t limit) const {
    OCTET_FAIL(unsupported, "{}: the pickle has more than {} {}; save the weights alone", where_,
               limit, what);
  }

  // -- bytes -------------------------------------------------------------------------------------
  uint8_t byte(size_t at) const { return static_cast<uint8_t>(bytes_[at]); }
  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - at_)
      damaged(fmt::format("it is cut short by {} bytes", count - (bytes_.size() - at_)));
    const std::string_view result = bytes_.substr(at_, count);
    at_ += count;
    return result;
  }
  uint64_t number(int width) {
    const std::string_view digits = take(static_cast<uint64_t>(width));
    uint64_t value = 0;
    for (int i = width; i-- > 0;)
      value = value << 8 | static_cast<uint8_t>(digits[static_cast<size_t>(i)]);
    return value;
  }
  std::string_view line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == bytes_.npos || end - at_ > kMaxNameBytes) damaged("a name does not end");
    const std::string_view result = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return result;
  }

  // -- values ------------------------------------------------------------------------------------
  Value& value(Ref ref) { return document_.values_[ref]; }
  Ref make(Kind kind) {
    if (document_.values_.size() == kMaxValues) beyond("values", kMaxValues);
    document_.values_.emplace_back().kind = kind;
    return static_cast<Ref>(document_.values_.size() - 1);
  }
  void push(Ref ref) { stack_.push_back(ref); }
  void push_integer(Kind kind, int64_t integer) {
    const Ref ref = make(kind);
    value(ref).integer = integer;
    push(ref);
  }
  void push_text(Kind kind, std::string_view text) {
    const Ref ref = make(kind);
    value(ref).text = text;
    push(ref);
  }
  void push_items(Kind kind, std::vector<Ref> items) {
    const Ref ref = make(kind);
    value(ref).items = std::move(items);
    push(ref);
  }
  Ref top() const {
    if (stack_.size() <= floor()) damaged("there is no value where one is needed");
    return stack_.back();
  }
  Ref pop() {
    const Ref ref = top();
    stack_.pop_back();
    return ref;
  }
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  std::vector<Ref> pop_to_mark() {
    if (marks_.empty()) damaged("there is no mark where one is needed");
    std::vector<Ref> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()),
                           stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return items;
  }
  void append(Kind kind, const std::vector<Ref>& items) {
    if (kind == Kind::dict && items.size() % 2 != 0) damaged("a key of a dict has no value");
    Value& target = value(top());
    // What is put into an object of a class on the list is not looked at: it is no object here.
    if (target.kind == Kind::call) return;
    if (target.kind != kind)
      damaged(fmt::format("{} is used as {}", kind_name(target.kind), kind_name(kind)));
    target.items.insert(target.items.end(), items.begin(), items.end());
  }
  // Python numbers the entries in their order.
  void remember(uint64_t index) {
    if (index >= kMaxValues) beyond("memo entries", kMaxValues);
    if (index >= memo_.size()) memo_.resize(index + 1, kNothing);
    remembered_ += memo_[index] == kNothing;
    memo_[index] = top();
  }
  void recall(uint64_t index) {
    if (index >= memo_.size() || memo_[index] == kNothing)
      damaged(fmt::format("memo entry {} is not there", index));
    push(memo_[index]);
  }

  void push_global(std::string_view module, std::string_view name) {
    for (const std::string_view part : {module, name})
      if (part.empty() || part.size() > kMaxNameBytes ||
          std::any_of(part.begin(), part.end(), [](char c) { return c <= ' ' || c > '~'; }))
        damaged("the name of a function or class is not one");
    const auto [it, added] = document_.names_.insert(fmt::format("{}.{}", module, name));
    if (added) check_(*it, stack_.empty() && marks_.empty());
    push_text(Kind::global, *it);
  }

  // f(args): a dict where f makes one, for items are put into it later.
  void call(Ref f, Ref args) {
    if (value(f).kind != Kind::global)
      damaged(fmt::format("{} is called", kind_name(value(f).kind)));
    if (value(args).kind != Kind::list)
      damaged(fmt::format("the arguments are {}", kind_name(value(args).kind)));
    const std::string_view name = value(f).text;
    if (name != "collections.OrderedDict" && name != "collections.defaultdict" &&
        name != "builtins.dict" && name != "__builtin__.dict") {
      push_items(Kind::call, {f, args});
      return;
    }
    // OrderedDict([[key, value], ...]), as Python 2 wrote it; defaultdict(factory).
    std::vector<Ref> items;
    if (!value(args).items.empty() && name != "collections.defaultdict") {
      const Value& pairs = value(value(args).items[0]);
      copied_ += pairs.items.size();
      if (copied_ > kMaxValues) beyond("copied values", kMaxValues);
      for (const Ref pair : pairs.items) {
        if (value(pair).kind != Kind::list || value(pair).items.size() != 2)
          damaged("a dict is not made of pairs");
        items.insert(items.end(), value(pair).items.begin(), value(pair).items.end());
      }
    }
    push_items(Kind::dict, std::move(items));
  }

  void step(uint8_t opcode) {
    switch (opcode) {
      case 0x80: {  // PROTO
        const uint64_t protocol = number(1);
        OCTET_CHECK(protocol >= 2 && protocol <= 5, unsupported,
                    "{}: pickle protocol {}; expected 2 to 5: save it with "
                    "torch.save(..., pickle_protocol=2)",
                    where_, protocol);
        break;
      }
      case 0x95:  // FRAME
        if (const uint64_t size = number(8); size > bytes_.size() - at_)
          damaged(fmt::format("a frame of {} bytes does not fit", size));
        break;

      case 'N':
        push(make(Kind::none));
        break;
      case 0x88:
      case 0x89:  // True, False
        push_integer(Kind::boolean, opcode == 0x88);
        break;
      case 'K':
        push_integer(Kind::integer, static_cast<int64_t>(number(1)));
        break;
      case 'M':
        push_integer(Kind::integer, static_cast<int64_t>(number(2)));
        break;
      case 'J':
        push_integer(Kind::integer, static_cast<int32_t>(number(4)));
        break;
      case 0x8a:
      case 0x8b: {  // LONG1, LONG4: two's complement
        const std::string_view digits = take(number(opcode == 0x8a ? 1 : 4));
        if (digits.size() > 8) {
          push_text(Kind::big, digits);
          break;
        }
        uint64_t bits = !digits.empty() && (digits.back() & 0x80) ? ~uint64_t{0} : 0;
        for (size_t i = digits.size(); i-- > 0;) bits = bits << 8 | static_cast<uint8_t>(digits[i]);
        push_integer(Kind::integer, static_cast<int64_t>(bits));
        break;
      }
      case 'G': {  // a double, big endian
        uint64_t bits = 0;
        for (const char c : take(8)) bits = bits << 8 | static_cast<uint8_t>(c);
        const Ref ref = make(Kind::real);
        value(ref).real = std::bit_cast<double>(bits);
        push(ref);
        break;
      }
      case 0x8c:
      case 'U':  // Python 2's str
        push_text(Kind::text, take(number(1)));
        break;
      case 'X':
      case 'T':
        push_text(Kind::text, take(number(4)));
        break;
      case 0x8d:
        push_text(Kind::text, take(number(8)));
        break;
      case 'C':
        push_text(Kind::bytes, take(number(1)));
        break;
      case 'B':
        push_text(Kind::bytes, take(number(4)));
        break;
      case 0x8e:
      case 0x96:  // bytes, bytearray
        push_text(Kind::bytes, take(number(8)));
        break;

      case '(':
        if (marks_.size() == kMaxValues) beyond("marks", kMaxValues);
        marks_.push_back(stack_.size());
        break;
      case '0':  // POP, of a mark too
        if (!marks_.empty() && stack_.size() == marks_.back())
          marks_.pop_back();
        else
          pop();
        break;
      case '1':
        pop_to_mark();
        break;
      case '2':
        push(top());
        break;

      case ']':
      case ')':
      case 0x8f:  // an empty list, tuple, set
        push(make(Kind::list));
        break;
      case 'l':
      case 't':
      case 0x91:  // a list, tuple, frozenset of all down to the mark
        push_items(Kind::list, pop_to_mark());
        break;
      case 0x85:
      case 0x86:
      case 0x87: {  // a tuple of 1, 2, 3
        std::vector<Ref> items(opcode - 0x84u);
        for (size_t i = items.size(); i-- > 0;) items[i] = pop();
        push_items(Kind::list, std::move(items));
        break;
      }
      case 'a': {
        const Ref item = pop();
        append(Kind::list, {item});
        break;
      }
      case 'e':
      case 0x90:  // to a list, a set
        append(Kind::list, pop_to_mark());
        break;
      case '}':
        push(make(Kind::dict));
        break;
      case 'd': {
        std::vector<Ref> items = pop_to_mark();
        if (items.size() % 2 != 0) damaged("a key of a dict has no value");
        push_items(Kind::dict, std::move(items));
        break;
      }
      case 's': {
        const Ref item = pop(), key = pop();
        append(Kind::dict, {key, item});
        break;
      }
      case 'u':
        append(Kind::dict, pop_to_mark());
        break;

      case 'q':
        remember(number(1));
        break;
      case 'r':
        remember(number(4));
        break;
      case 0x94:  // MEMOIZE
        remember(remembered_);
        break;
      case 'h':
        recall(number(1));
        break;
      case 'j':
        recall(number(4));
        break;

      case 'c': {
        const std::string_view module = line(), name = line();
        push_global(module, name);
        break;
      }
      case 0x93: {  // STACK_GLOBAL
        const Ref name = pop(), module = pop();
        if (value(name).kind != Kind::text || value(module).kind != Kind::text)
          damaged("the name of a function or class is not one");
        push_global(value(module).text, value(name).text);
        break;
      }
      case 'R':
      case 0x81: {  // REDUCE, NEWOBJ
        const Ref args = pop(), f = pop();
        call(f, args);
        break;
      }
      case 0x92: {  // NEWOBJ_EX: the keyword arguments are dropped
        pop();
        const Ref args = pop(), f = pop();
        call(f, args);
        break;
      }
      case 'b':  // BUILD: an object's state, as the _metadata of a state dict
        pop();
        top();
        break;
      case 'Q': {
        const Ref id = pop();
        push_items(Kind::persistent, {id});
        break;
      }
      default:
        damaged(fmt::format("{:#04x} is no opcode that PyTorch's files have", opcode));
    }
  }

  std::string_view bytes_;
  const std::string& where_;
  const CheckGlobal& check_;
  size_t at_ = 0, begin_ = 0;  // of the next byte; of the opcode that runs
  size_t copied_ = 0;
  Document document_;
  std::vector<Ref> stack_;
  std::vector<size_t> marks_;  // the heights of the stack at which they lie
  static constexpr Ref kNothing = ~Ref{0};
  std::vector<Ref> memo_;
  size_t remembered_ = 0;  // entries of it
};

Document read(std::string_view bytes, const std::string& where, const CheckGlobal& check,
              size_t* used) {
  // A file may hold gigabytes behind its pickle.
  Document document = Machine(bytes.substr(0, kMaxBytes), where, check).run(used);
  return document;
}

}  // namespace octet::pickle
