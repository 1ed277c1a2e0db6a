// What the addon keeps per JavaScript environment. There is no global state: worker threads and a second copy of the
// addon have their own.
#pragma once

#include "addon/arguments.h"
#include "addon/jobs.h"

namespace kandinsky::addon {

/// `new CancelFlag()`: its cancel() stops the call that it was given to.
class CancelFlag : public Napi::ObjectWrap<CancelFlag> {
 public:
  static Napi::Function define(Napi::Env env);
  /// The token of a CancelFlag argument, or a fresh one if it is missing.
  static CancelToken token_of(const Argument& argument);

  explicit CancelFlag(const Napi::CallbackInfo& info);

 private:
  void cancel(const Napi::CallbackInfo& info);
  CancelToken token_ = std::make_shared<std::atomic<bool>>(false);
};

struct Environment {
  explicit Environment(Napi::Env env) : jobs(env) {}
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  Jobs jobs;
};

/// Calls `body` and throws what it throws as a JavaScript error with a code.
template <typename Body>
auto guarded(Napi::Env env, Body body) {
  decltype(body()) result;
  if (const auto error = catch_error([&] { result = body(); })) throw to_js_error(env, *error);
  return result;
}

/// Loads ggml's backends where the build keeps them as libraries beside the addon. Once per process, on first need:
/// starting CUDA takes a while. Call it before anything that lists or opens devices.
void prepare_backends();

Napi::Value load_network_job(const Napi::CallbackInfo& info);

}  // namespace kandinsky::addon
