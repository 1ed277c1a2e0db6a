#include "addon/environment.h"

namespace kandinsky::addon {

// Marks our objects: unwrapping another addon's object as ours would reinterpret its memory.
static constexpr napi_type_tag cancel_flag_tag = {0x6b616e64696e736b, 0x9f3c1b5e7a2d4c81};

Napi::Function CancelFlag::define(Napi::Env env) {
  return DefineClass(env, "CancelFlag", {InstanceMethod<&CancelFlag::cancel>("cancel")});
}

CancelFlag::CancelFlag(const Napi::CallbackInfo& info) : Napi::ObjectWrap<CancelFlag>(info) {
  info.This().As<Napi::Object>().TypeTag(&cancel_flag_tag);
}

void CancelFlag::cancel(const Napi::CallbackInfo&) {
  *token_ = true;
}

CancelToken CancelFlag::token_of(const Argument& argument) {
  if (argument.is_missing()) return std::make_shared<std::atomic<bool>>(false);
  if (!argument.object().CheckTypeTag(&cancel_flag_tag))
    fail(ErrorCode::invalid_argument, "Expected a CancelFlag for {}", argument.name);
  return Unwrap(argument.object())->token_;
}

}  // namespace kandinsky::addon
