// The depth map of a picture, with which controlnet.ts and controlnet-image-to-image.ts begin.
import { DepthEstimator } from 'node-kandinsky'
import { settings } from './arguments.js'

const { model, image, output } = settings({
  model: 'Intel/dpt-large',
  image: 'cat.png',
  output: 'cat-depth.png',
})

await using estimator = await DepthEstimator.fromPretrained(model)
const { depth } = await estimator.estimate(image)
await depth.save(output)
