// Who may use a device next: calls queue, and networks that share a group take turns in memory.
import { Queue } from './queue.js'

/** What holds memory on the device until another needs it. */
export interface Resident {
  release(): Promise<void>
}

/** A queue of calls, and at most one network of those that share it on the device. */
export class NetworkGroup extends Queue {
  /** the network that is loaded */
  resident: Resident | undefined
}
