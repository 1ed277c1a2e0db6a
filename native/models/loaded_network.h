// What runs a network: its weights in memory, its graphs between runs.
#pragma once

#include "models/model.h"
#include "models/network.h"

namespace kandinsky {

using ModelFactory = std::unique_ptr<Model> (*)(const Config&, const Weights&);

std::unique_ptr<Network> load_model(ModelFactory factory, const Config& config,
                                    const std::vector<TensorSource>& sources, const LoadOptions& options);

}  // namespace kandinsky
