#pragma once
// Lists of classes, for what is done with each of them.

namespace octet {

template <typename... Ts>
struct TypeList {};
// Calls fn.operator()<T>() for each type, in order.
template <typename... Ts, typename Fn>
void for_each_type(TypeList<Ts...>, Fn&& fn) {
  (fn.template operator()<Ts>(), ...);
}

}  // namespace octet
