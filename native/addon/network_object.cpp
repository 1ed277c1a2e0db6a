// loadNetwork() and the object it resolves to. That object's methods are closures over the network's state, not methods
// of a wrapped object, so they do not depend on `this`.
#include "addon/environment.h"

namespace kandinsky::addon {

namespace {

/// Shared by the JavaScript object and the jobs that use it; the last one to go frees the network, which is why an
/// object that is collected during a run does no harm. Created and destroyed on the JavaScript thread.
struct NetworkState {
  NetworkState(Napi::Env env, std::unique_ptr<Network> loaded) : env(env), network(std::move(loaded)) { update(); }
  ~NetworkState() {
    network.reset();
    update();
  }
  NetworkState(const NetworkState&) = delete;
  NetworkState& operator=(const NetworkState&) = delete;

  /// Tells the garbage collector what an otherwise tiny object holds. Not while a job runs.
  void update() {
    weights = network ? static_cast<int64_t>(network->weight_bytes()) : 0;
    compute = network ? static_cast<int64_t>(network->compute_bytes()) : 0;
    Napi::MemoryManagement::AdjustExternalMemory(env, weights + compute - reported);
    reported = weights + compute;
  }

  Napi::Env env;
  std::unique_ptr<Network> network;
  std::atomic<bool> disposed{false};
  std::shared_ptr<JobQueue> queue = std::make_shared<JobQueue>();
  int64_t weights = 0, compute = 0, reported = 0;
};
using SharedState = std::shared_ptr<NetworkState>;

class RunJob : public Job {
 public:
  RunJob(const Napi::CallbackInfo& info, SharedState network) : Job(info.Env()), state_(std::move(network)) {
    method_ = argument(info, 0, "method").text();
    inputs_ = to_host_tensors(argument(info, 1, "inputs"));
    const Argument options = argument(info, 2, "options");
    cancel = CancelFlag::token_of(options["cancel"]);
    if (const Argument taps = options["taps"]; !taps.is_missing()) taps_ = taps.texts();
    queue = state_->queue;
  }

 private:
  void execute() override {
    if (state_->disposed) fail(ErrorCode::disposed, "The network was disposed");
    if (*cancel) fail_cancelled();
    outputs_ = state_->network->run(method_, inputs_, {cancel.get(), taps_});
  }
  Napi::Value result(Napi::Env env) override {
    state_->update();
    return to_js(env, outputs_);
  }

  SharedState state_;
  std::string method_;
  HostTensors inputs_, outputs_;
  std::vector<std::string> taps_;
};

/// Waits for the calls before it: they read the weights.
class ReleaseWeightsJob : public Job {
 public:
  ReleaseWeightsJob(Napi::Env env, SharedState network) : Job(env), state_(std::move(network)) { queue = state_->queue; }

 private:
  void execute() override {
    if (state_->network) state_->network->release_weights();
  }
  Napi::Value result(Napi::Env env) override {
    state_->update();
    return env.Undefined();
  }

  SharedState state_;
};

/// Waits for the calls before it, like those that come later for it.
class AdaptJob : public Job {
 public:
  AdaptJob(const Napi::CallbackInfo& info, SharedState network) : Job(info.Env()), state_(std::move(network)) {
    sources_ = to_sources(argument(info, 0, "sources"));
    queue = state_->queue;
  }

 private:
  void execute() override {
    if (state_->disposed) fail(ErrorCode::disposed, "The network was disposed");
    state_->network->adapt(sources_, nullptr);
  }
  Napi::Value result(Napi::Env env) override {
    state_->update();
    return env.Undefined();
  }

  SharedState state_;
  std::vector<TensorSource> sources_;
};

/// Runs after the call that is running; the calls queued before it find `disposed` set.
class DisposeJob : public Job {
 public:
  DisposeJob(Napi::Env env, SharedState network) : Job(env), state_(std::move(network)) { queue = state_->queue; }

 private:
  void execute() override { state_->network.reset(); }
  Napi::Value result(Napi::Env env) override {
    state_->update();
    return env.Undefined();
  }

  SharedState state_;
};

Napi::Value run(const Napi::CallbackInfo& info, const SharedState& state) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    if (state->disposed) fail(ErrorCode::disposed, "The network was disposed");
    return Environment::of(info.Env()).jobs.start(std::make_unique<RunJob>(info, state));
  });
}

Napi::Value memory(const Napi::CallbackInfo& info, const SharedState& state) {
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("weights", static_cast<double>(state->weights));
  result.Set("compute", static_cast<double>(state->compute));
  return result;
}

Napi::Value release_weights(const Napi::CallbackInfo& info, const SharedState& state) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return Environment::of(info.Env()).jobs.start(std::make_unique<ReleaseWeightsJob>(info.Env(), state));
  });
}

Napi::Value adapt(const Napi::CallbackInfo& info, const SharedState& state) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    if (state->disposed) fail(ErrorCode::disposed, "The network was disposed");
    return Environment::of(info.Env()).jobs.start(std::make_unique<AdaptJob>(info, state));
  });
}

Napi::Value dispose(const Napi::CallbackInfo& info, const SharedState& state) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    state->disposed = true;
    return Environment::of(info.Env()).jobs.start(std::make_unique<DisposeJob>(info.Env(), state));
  });
}

using Method = Napi::Value (*)(const Napi::CallbackInfo&, const SharedState&);

Napi::Object network_object(Napi::Env env, const SharedState& state) {
  Napi::Object object = Napi::Object::New(env);
  const auto define = [&](const char* name, Method method) {
    object.Set(name, Napi::Function::New(
                         env, [state, method](const Napi::CallbackInfo& info) { return method(info, state); }, name));
  };
  define("run", run);
  define("memory", memory);
  define("releaseWeights", release_weights);
  define("adapt", adapt);
  define("dispose", dispose);
  return object;
}

Packing to_packing(const std::string& name) {
  if (name == "compact") return Packing::compact;
  if (name == "fast") return Packing::fast;
  fail(ErrorCode::invalid_argument, "Expected 'compact' or 'fast' for packing but received \"{}\"", name);
}

Tiling to_tiling(const std::string& name) {
  if (name == "auto") return Tiling::automatic;
  if (name == "always") return Tiling::always;
  if (name == "never") return Tiling::never;
  fail(ErrorCode::invalid_argument, "Expected 'auto', 'always' or 'never' for tiling but received \"{}\"", name);
}

class LoadJob : public Job {
 public:
  explicit LoadJob(const Napi::CallbackInfo& info) : Job(info.Env()) {
    const Argument job = argument(info, 0, "job");
    class_name_ = job["className"].text();
    config_ = Config(job["component"].text(), to_metadata(job["config"]));
    sources_ = to_sources(job["tensors"]);
    options_.device = job["device"].text();
    options_.threads = static_cast<int>(job["threads"].integer(0, 1024));
    if (const Argument packing = job["packing"]; !packing.is_missing()) options_.packing = to_packing(packing.text());
    if (const Argument tiling = job["tiling"]; !tiling.is_missing()) options_.tiling = to_tiling(tiling.text());
    if (const Argument dry_run = job["dryRun"]; !dry_run.is_missing()) options_.dry_run = dry_run.boolean();
    cancel = CancelFlag::token_of(job["cancel"]);
    if (const Argument callback = argument(info, 1, "onProgress"); !callback.is_missing())
      on_progress = Napi::Persistent(callback.function());
  }

 private:
  void execute() override {
    prepare_backends();
    options_.cancel = cancel.get();
    options_.progress = [this](uint64_t done, uint64_t total) { report_progress(done, total); };
    for (const TensorSource& source : sources_) check_source(source);
    network_ = load_network(class_name_, config_, sources_, options_);
  }
  Napi::Value result(Napi::Env env) override {
    return network_object(env, std::make_shared<NetworkState>(env, std::move(network_)));
  }

  std::string class_name_;
  Config config_;
  std::vector<TensorSource> sources_;
  LoadOptions options_;
  std::unique_ptr<Network> network_;
};

}  // namespace

Napi::Value load_network_job(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return Environment::of(info.Env()).jobs.start(std::make_unique<LoadJob>(info));
  });
}

}  // namespace kandinsky::addon
