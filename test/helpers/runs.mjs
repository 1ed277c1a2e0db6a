/** Shapes of an input of a network at each of its runs during `make`. */
export async function shapesOfRuns(network, input, make) {
  const shapes = []
  const run = network.run
  network.run = (method, inputs, options) => {
    shapes.push(inputs[input].shape)
    return run.call(network, method, inputs, options)
  }
  try {
    await make()
  } finally {
    network.run = run
  }
  return shapes
}
