// Picture to depth, after transformers' depth-estimation pipeline (pipelines/depth_estimation.py).
import { type ImageInput, loadImage, type RawImage } from '../images/image.js'
import { interpolateBicubic } from '../images/processing.js'
import { type DptProcessorConfig, depthImage, dptPreprocess } from '../images/processing-depth.js'
import type { Model } from '../networks/network.js'
import { Tensor } from '../tensor.js'
import { expectOptions } from './call/options.js'
import { loadDepthComponents, type NetworkPretrainedOptions } from './loading/load.js'

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
export class DepthEstimator {
  constructor(
    readonly network: Model,
    readonly imageProcessor: DptProcessorConfig,
  ) {}

  /**
   * @param source a folder in the transformers layout with a DPTForDepthEstimation, a .gguf file made of one, or a hub id
   *   such as `Intel/dpt-large`
   * @throws KandinskyError `FILE_NOT_FOUND`, `BAD_FILE`, `UNSUPPORTED_MODEL` (also for other kinds of DPT, such as hybrid
   *   ones), `DEVICE_UNAVAILABLE`, `OUT_OF_MEMORY`
   */
  static async fromPretrained(source: string, options: NetworkPretrainedOptions = {}): Promise<DepthEstimator> {
    const { network, imageProcessor } = await loadDepthComponents(source, options)
    return new DepthEstimator(network, imageProcessor)
  }

  /**
   * Depth of one picture.
   * @throws KandinskyError `INVALID_ARGUMENT`, `DISPOSED`, and those of `loadImage`; or `signal.reason`
   */
  async estimate(image: ImageInput, options: { signal?: AbortSignal | undefined } = {}): Promise<DepthResult> {
    expectOptions(options, ['signal'])
    const { signal } = options
    const picture = await loadImage(image, { signal })
    const pixels = await dptPreprocess(picture, this.imageProcessor)
    const { predicted_depth: predicted } = await this.network.run('forward', { pixel_values: pixels }, { signal })
    const [, height, width] = predicted!.shape as [number, number, number]
    const map = new Tensor(predicted!.data, [1, 1, height, width])
    const { data } = interpolateBicubic(map, picture.height, picture.width)
    const predictedDepth = new Tensor(data, [1, picture.height, picture.width])
    return { predictedDepth, depth: depthImage(predictedDepth) }
  }

  /** Frees the network after the running call. Idempotent; later calls reject with `DISPOSED`. */
  dispose(): Promise<void> {
    return this.network.dispose()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }
}
