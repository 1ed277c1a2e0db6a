// ggml-cuda's device with one thing more: custom operations, which put our kernels on a stream of our own. Buffers and
// ggml's own operations are ggml-cuda's (the "inner" device and backend), so that a graph of both runs on one backend:
// without copies, and without the host waiting between operations. Where the stream changes, an event makes the next
// one wait for the one before.
//
// The interfaces of ggml-backend-impl.h change between versions of ggml: this is compiled with the version in ggml.json.
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "cuda/library.h"
#include "ggml-backend-impl.h"
#include "ggml-cpp.h"
#include "ggml-impl.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/table.h"

namespace kandinsky {

namespace {

// ---- the backend ---------------------------------------------------------------------------------------------------

struct Backend {
  ggml_backend_ptr inner;
  int card = 0;
  void* stream = nullptr;
  // For either direction; null where ggml-cuda was built without events: then the host waits.
  ggml_backend_event_ptr inner_is_done, stream_is_done;

  ~Backend() {
    if (stream) cuda::free_stream(stream);
  }
};

Backend& backend_of(ggml_backend_t backend) { return *static_cast<Backend*>(backend->context); }

bool is_ours(const ggml_tensor* node) { return node->op == GGML_OP_CUSTOM; }

/// Operations that only say how to look at memory.
bool is_view(const ggml_tensor* node) {
  switch (node->op) {
    case GGML_OP_NONE:
    case GGML_OP_RESHAPE:
    case GGML_OP_VIEW:
    case GGML_OP_PERMUTE:
    case GGML_OP_TRANSPOSE: return true;
    default: return ggml_is_empty(node);
  }
}

void stream_follows_inner(Backend& b) {
  if (b.inner_is_done) {
    ggml_backend_event_record(b.inner_is_done.get(), b.inner.get());
    cuda::wait_for_event(b.stream, b.inner_is_done->context);
  } else {
    ggml_backend_synchronize(b.inner.get());
  }
}

/// False if what is on the stream has failed.
bool inner_follows_stream(Backend& b) {
  if (!b.stream_is_done) return cuda::finish_stream(b.stream);
  cuda::record_event(b.stream, b.stream_is_done->context);
  ggml_backend_event_wait(b.inner.get(), b.stream_is_done.get());
  return true;
}

void launch_custom(ggml_tensor* node) {
  ggml_custom_op_params params;
  std::memcpy(&params, node->op_params, sizeof params);
  params.fun(node, 0, 1, params.userdata);
}

ggml_status compute_graph(ggml_backend_t backend, ggml_cgraph* graph) {
  Backend& b = backend_of(backend);
  enum { both, on_stream, on_inner } last = both;  // where the nodes so far went; both: nowhere yet
  for (int i = 0; i < graph->n_nodes;) {
    if (is_view(graph->nodes[i])) {
      ++i;
    } else if (is_ours(graph->nodes[i])) {
      if (last == on_inner) stream_follows_inner(b);
      last = on_stream;
      cuda::use_card(b.card);
      launch_custom(graph->nodes[i++]);
    } else {
      int end = i + 1;
      while (end < graph->n_nodes && !is_ours(graph->nodes[end])) ++end;
      if (last == on_stream && !inner_follows_stream(b)) return GGML_STATUS_FAILED;
      last = on_inner;
      ggml_cgraph part = *graph;  // as ggml_graph_view makes it, which ggml's libraries do not export
      part.size = 0;
      part.n_nodes = end - i;
      part.n_leafs = 0;
      part.nodes = graph->nodes + i;
      part.grads = part.grad_accs = nullptr;
      part.leafs = nullptr;
      part.uid = 0;
      const ggml_status status = ggml_backend_graph_compute_async(b.inner.get(), &part);
      if (status != GGML_STATUS_SUCCESS) return status;
      i = end;
    }
  }
  // Waits, which the caller would do next anyway: only here can it be told what became of the kernels.
  if (last == on_inner) stream_follows_inner(b);
  cuda::use_card(b.card);
  return cuda::finish_stream(b.stream) ? GGML_STATUS_SUCCESS : GGML_STATUS_FAILED;
}

void synchronize(ggml_backend_t backend) { ggml_backend_synchronize(backend_of(backend).inner.get()); }

const char* backend_name(ggml_backend_t backend) { return ggml_backend_name(backend_of(backend).inner.get()); }

void free_backend(ggml_backend_t backend) {
  delete &backend_of(backend);
  delete backend;
}

ggml_guid guid = {0x6b, 0x61, 0x6e, 0x64, 0x69, 0x6e, 0x73, 0x6b, 0x79, 0x2d, 0x63, 0x75, 0x64, 0x61, 0x00, 0x01};

// ---- the device ----------------------------------------------------------------------------------------------------

ggml_backend_dev_t inner_of(ggml_backend_dev_t device) { return static_cast<ggml_backend_dev_t>(device->context); }

/// ggml-cuda numbers its devices as CUDA does.
int card_of(ggml_backend_dev_t inner) {
  ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(inner);
  int card = 0;
  while (ggml_backend_reg_dev_get(registry, card) != inner) ++card;
  return card;
}

ggml_backend_t new_backend(ggml_backend_dev_t device, const char* params) {
  ggml_backend_dev_t inner = inner_of(device);
  auto b = std::make_unique<Backend>();
  b->inner.reset(ggml_backend_dev_init(inner, params));
  b->card = card_of(inner);
  b->stream = cuda::new_stream(b->card);
  if (!b->inner || !b->stream) return nullptr;
  b->inner_is_done.reset(ggml_backend_event_new(inner));
  b->stream_is_done.reset(ggml_backend_event_new(inner));
  ggml_backend_i interface = {};
  interface.get_name = backend_name;
  interface.free = free_backend;
  interface.synchronize = synchronize;
  interface.graph_compute = compute_graph;
  return new ggml_backend{&guid, interface, device, b.release()};
}

void get_properties(ggml_backend_dev_t device, ggml_backend_dev_props* properties) {
  ggml_backend_dev_get_props(inner_of(device), properties);
  properties->caps.events = false;
}

ggml_backend_device_i device_interface(ggml_backend_dev_t inner) {
  ggml_backend_device_i i = {};
  i.get_name = [](ggml_backend_dev_t d) { return ggml_backend_dev_name(inner_of(d)); };
  i.get_description = [](ggml_backend_dev_t d) { return ggml_backend_dev_description(inner_of(d)); };
  i.get_memory = [](ggml_backend_dev_t d, size_t* free, size_t* total) { ggml_backend_dev_memory(inner_of(d), free, total); };
  i.get_type = [](ggml_backend_dev_t d) { return ggml_backend_dev_type(inner_of(d)); };
  i.get_props = get_properties;
  i.init_backend = new_backend;
  i.get_buffer_type = [](ggml_backend_dev_t d) { return ggml_backend_dev_buffer_type(inner_of(d)); };
  i.get_host_buffer_type = [](ggml_backend_dev_t d) { return ggml_backend_dev_host_buffer_type(inner_of(d)); };
  if (inner->iface.buffer_from_host_ptr) {
    i.buffer_from_host_ptr = [](ggml_backend_dev_t d, void* memory, size_t size, size_t largest) {
      return ggml_backend_dev_buffer_from_host_ptr(inner_of(d), memory, size, largest);
    };
  }
  i.supports_op = [](ggml_backend_dev_t d, const ggml_tensor* node) {
    return is_ours(node) || ggml_backend_dev_supports_op(inner_of(d), node);
  };
  i.supports_buft = [](ggml_backend_dev_t d, ggml_backend_buffer_type_t type) {
    return ggml_backend_dev_supports_buft(inner_of(d), type);
  };
  return i;
}

// ---- what the library offers -----------------------------------------------------------------------------------------

extern ggml_backend_reg registry;

ggml_backend_dev_t wrapped(ggml_backend_dev_t inner) {
  if (!cuda::supports_card(card_of(inner))) return nullptr;
  static std::mutex mutex;
  static std::map<ggml_backend_dev_t, ggml_backend_device> devices;  // for as long as the process, as ggml's own are
  const std::lock_guard<std::mutex> lock(mutex);
  return &devices.try_emplace(inner, ggml_backend_device{device_interface(inner), &registry, inner}).first->second;
}

const CudaLibrary library = {wrapped, cuda_kernels, [](ggml_backend_t backend) { return backend_of(backend).stream; }};

// A registry without devices: those that it makes stand for ggml-cuda's.
ggml_backend_reg registry = {
    GGML_BACKEND_API_VERSION,
    {[](ggml_backend_reg_t) { return cuda_library_name; }, [](ggml_backend_reg_t) { return size_t{0}; },
     [](ggml_backend_reg_t, size_t) -> ggml_backend_dev_t { return nullptr; },
     [](ggml_backend_reg_t, const char* name) -> void* {
       return std::strcmp(name, cuda_library_name) == 0 ? const_cast<CudaLibrary*>(&library) : nullptr;
     }},
    nullptr};

}  // namespace

}  // namespace kandinsky

/// What ggml_backend_load() calls.
extern "C" {
GGML_BACKEND_API ggml_backend_reg_t ggml_backend_init(void);
ggml_backend_reg_t ggml_backend_init(void) { return &kandinsky::registry; }
}
