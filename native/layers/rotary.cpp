#include "layers/rotary.h"

#include <cmath>

namespace kandinsky {

void add_rotation(HostTensors& inputs, const std::string& name, const std::vector<float>& angles, int64_t tokens) {
  HostTensor &cos = inputs[name + "_cos"], &sin = inputs[name + "_sin"];
  cos.shape = sin.shape = {tokens, static_cast<int64_t>(angles.size()) / tokens};
  for (const float angle : angles) {
    cos.f32.push_back(std::cos(angle));
    sin.f32.push_back(std::sin(angle));
  }
}

Rotation::Rotation(Graph& g, const std::string& name) {
  const auto table = [&](const std::string& part) {
    ggml_tensor* t = g.input(name + part);
    return ggml_reshape_3d(g.context(), t, t->ne[0], 1, t->ne[1]);
  };
  cos = table("_cos");
  sin = table("_sin");
}

ggml_tensor* Rotation::halves(Graph& g, ggml_tensor* x) const {
  ggml_context* c = g.context();
  const auto half = [&](int64_t which) {
    return ggml_view_4d(c, x, x->ne[0] / 2, x->ne[1], x->ne[2], x->ne[3], x->nb[1], x->nb[2], x->nb[3],
                        which * (x->ne[0] / 2) * x->nb[0]);
  };
  ggml_tensor *a = half(0), *b = half(1);
  ggml_tensor* first = ggml_sub(c, ggml_mul(c, a, cos), ggml_mul(c, b, sin));
  ggml_tensor* second = ggml_add(c, ggml_mul(c, a, sin), ggml_mul(c, b, cos));
  return ggml_concat(c, first, second, 0);
}

ggml_tensor* Rotation::adjacent(Graph& g, ggml_tensor* x) const {
  ggml_context* c = g.context();
  ggml_tensor* pairs = ggml_reshape_3d(c, x, 2, x->ne[0] / 2, x->ne[1] * x->ne[2] * x->ne[3]);
  ggml_tensor* apart = ggml_cont(c, ggml_permute(c, pairs, 1, 0, 2, 3));
  return halves(g, ggml_reshape_4d(c, apart, x->ne[0], x->ne[1], x->ne[2], x->ne[3]));
}

}  // namespace kandinsky
