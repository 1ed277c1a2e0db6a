// The addon's exports; src/native.ts types them (interface Binding).
#include <set>

#include "addon/environment.h"
#include "core/engine_info.h"
#include "core/gguf_file.h"
#include "core/gguf_writer.h"

namespace kandinsky::addon {

namespace {

Napi::Value info(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&]() -> Napi::Value {
    prepare_backends();
    const EngineInfo engine = engine_info();
    Napi::Object result = Napi::Object::New(call.Env());
    result.Set("ggml", engine.ggml_version);
    result.Set("cuda", engine.has_cuda);
    result.Set("cpuVariant", engine.cpu_variant);
    return result;
  });
}

Napi::Value devices(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&]() -> Napi::Value {
    prepare_backends();
    Napi::Array result = Napi::Array::New(call.Env());
    for (const DeviceInfo& device : list_devices()) {
      Napi::Object entry = Napi::Object::New(call.Env());
      entry.Set("name", device.name);
      entry.Set("kind", device.kind);
      entry.Set("description", device.description);
      entry.Set("totalBytes", static_cast<double>(device.total_bytes));
      entry.Set("freeBytes", static_cast<double>(device.free_bytes));
      result.Set(result.Length(), entry);
    }
    return result;
  });
}

Napi::Value network_class_names(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&] { return to_js(call.Env(), Value(network_classes())); });
}

Napi::Value describe(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&]() -> Napi::Value {
    const std::string class_name = argument(call, 0, "className").text();
    const Config config(argument(call, 1, "component").text(), to_metadata(argument(call, 2, "config")));
    Napi::Array result = Napi::Array::New(call.Env());
    const Argument names = argument(call, 3, "stored");
    const std::vector<std::string> list = names.is_missing() ? std::vector<std::string>() : names.texts();
    const std::set<std::string> stored(list.begin(), list.end());
    for (const TensorSpec& spec : describe_network(class_name, config, names.is_missing() ? nullptr : &stored)) {
      Napi::Object entry = Napi::Object::New(call.Env());
      entry.Set("name", spec.name);
      entry.Set("shape", to_js(call.Env(), spec.shape));
      entry.Set("precision", precision_name(spec.precision));
      entry.Set("transposed", spec.transposed);
      result.Set(result.Length(), entry);
    }
    return result;
  });
}

class ReadGgufJob : public Job {
 public:
  explicit ReadGgufJob(const Napi::CallbackInfo& call) : Job(call.Env()), path_(argument(call, 0, "path").text()) {}

 private:
  void execute() override { content_ = read_gguf(path_); }
  Napi::Value result(Napi::Env env) override {
    Napi::Array tensors = Napi::Array::New(env, content_.tensors.size());
    for (uint32_t i = 0; i < content_.tensors.size(); ++i) {
      const GgufTensor& tensor = content_.tensors[i];
      Napi::Object entry = Napi::Object::New(env);
      entry.Set("name", tensor.name);
      entry.Set("type", type_name(tensor.type));
      entry.Set("shape", to_js(env, tensor.shape));
      entry.Set("offset", static_cast<double>(tensor.offset));
      entry.Set("bytes", static_cast<double>(tensor.bytes));
      tensors.Set(i, entry);
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("metadata", to_js(env, content_.metadata));
    result.Set("tensors", tensors);
    result.Set("stamp", content_.stamp);
    return result;
  }

  std::string path_;
  GgufContent content_;
};

class WriteGgufJob : public Job {
 public:
  explicit WriteGgufJob(const Napi::CallbackInfo& call) : Job(call.Env()) {
    const Argument job = argument(call, 0, "job");
    path_ = job["path"].text();
    metadata_ = to_metadata(job["metadata"]);
    sources_ = to_sources(job["tensors"]);
    threads_ = static_cast<int>(job["threads"].integer(0, 1024));
    cancel = CancelFlag::token_of(job["cancel"]);
    if (const Argument callback = argument(call, 1, "onProgress"); !callback.is_missing())
      on_progress = Napi::Persistent(callback.function());
  }

 private:
  void execute() override {
    write_gguf(path_, metadata_, sources_, threads_, cancel.get(),
               [this](uint64_t done, uint64_t total) { report_progress(done, total); });
  }

  std::string path_;
  Metadata metadata_;
  std::vector<TensorSource> sources_;
  int threads_ = 0;
};

template <typename JobType>
Napi::Value start(const Napi::CallbackInfo& call) {
  return guarded(call.Env(), [&]() -> Napi::Value {
    return Environment::of(call.Env()).jobs.start(std::make_unique<JobType>(call));
  });
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Environment(env));
  exports.Set("version", KANDINSKY_VERSION);
  exports.Set("info", Napi::Function::New<info>(env, "info"));
  exports.Set("devices", Napi::Function::New<devices>(env, "devices"));
  exports.Set("networkClasses", Napi::Function::New<network_class_names>(env, "networkClasses"));
  exports.Set("describeNetwork", Napi::Function::New<describe>(env, "describeNetwork"));
  exports.Set("readGguf", Napi::Function::New<start<ReadGgufJob>>(env, "readGguf"));
  exports.Set("writeGguf", Napi::Function::New<start<WriteGgufJob>>(env, "writeGguf"));
  exports.Set("loadNetwork", Napi::Function::New<load_network_job>(env, "loadNetwork"));
  exports.Set("CancelFlag", CancelFlag::define(env));
  return exports;
}

}  // namespace

NODE_API_MODULE(kandinsky, initialize)

}  // namespace kandinsky::addon
