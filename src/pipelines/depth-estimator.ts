// Picture to depth, after transformers' depth-estimation pipeline (pipelines/depth_estimation.py).
import { type ImageInput, loadImage, type RawImage } from '../images/image.js'
import { interpolateBicubic } from '../images/processing.js'
import { type DptProcessorConfig, depthImage, dptPreprocess } from '../images/processing-depth.js'
import { Tensor } from '../tensor.js'
import { expectOptions } from './call/options.js'
import { type ComponentsOf, network, settings } from './loading/parts.js'
import { Pipeline } from './loading/pipeline.js'

const parts = {
  depthEstimator: network('DPTForDepthEstimation'),
  imageProcessor: settings<DptProcessorConfig>('preprocessor_config.json'),
}

/** Depth of a picture, as numbers and as a picture. */
export interface DepthResult {
  /** [1, height, width] with the size of the picture; larger is nearer, the unit is the network's own */
  predictedDepth: Tensor
  /** the same as a gray picture, scaled so that the nearest point is white and the farthest black */
  depth: RawImage
}

/**
 * Estimates depth in pictures, for the `hint` of the ControlNet pipelines:
 *
 *     const { depth } = await estimator.estimate('cat.png')
 *     await pipe.generate({ prompt, hint: depth })   // or makeHint(depth, { height, width })
 */
export class DepthEstimator extends Pipeline<ComponentsOf<typeof parts>> {
  static readonly parts = parts

  /**
   * Depth of one picture.
   * @throws KandinskyError `INVALID_ARGUMENT`, `DISPOSED`, and those of `loadImage`; or `signal.reason`
   */
  async estimate(image: ImageInput, options: { signal?: AbortSignal | undefined } = {}): Promise<DepthResult> {
    expectOptions(options, ['signal'])
    const { signal } = options
    const picture = await loadImage(image, { signal })
    const { depthEstimator, imageProcessor = {} } = this.components
    const pixels = await dptPreprocess(picture, imageProcessor)
    const { predicted_depth: predicted } = await depthEstimator.run('forward', { pixel_values: pixels }, { signal })
    const [, height, width] = predicted.shape as [number, number, number]
    const map = new Tensor(predicted.data, [1, 1, height, width])
    const { data } = interpolateBicubic(map, picture.height, picture.width)
    const predictedDepth = new Tensor(data, [1, picture.height, picture.width])
    return { predictedDepth, depth: depthImage(predictedDepth) }
  }
}
