// Numbers for Prometheus, through its client library, which whoever wants them installs beside this package: `/metrics` of
// the server. Jobs are counted from the server's start.
import type { Registry } from 'prom-client'
import { KandinskyError } from '../errors.js'
import type { JobEvent } from './service.js'

/** In seconds: from a demo's picture to a large one on a slow machine. */
const BUCKETS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]

export interface Metrics {
  /** Counts a job that ended. */
  record(event: JobEvent): void
  /** @throws KandinskyError `FILE_NOT_FOUND` where the library is not installed */
  text(): Promise<{ type: string; text: string }>
}

/** @param size how many jobs wait or run now */
export function countJobs(size: () => Promise<number>): Metrics {
  // Events that come while the library is being loaded wait for it.
  const library = import('prom-client').then((client) => collect(client, size)).catch(() => undefined)
  return {
    record: (event) => void library.then((loaded) => loaded?.record(event)),
    async text() {
      const registry = (await library)?.registry
      if (!registry)
        throw new KandinskyError('FILE_NOT_FOUND', '/metrics needs another package: npm install prom-client')
      return { type: registry.contentType, text: await registry.metrics() }
    },
  }
}

function collect(client: typeof import('prom-client'), size: () => Promise<number>) {
  const registry: Registry = new client.Registry()
  client.collectDefaultMetrics({ register: registry })
  const registers = [registry]
  const labelNames = ['api', 'state']
  const jobs = new client.Counter({ name: 'kandinsky_jobs_total', help: 'jobs that ended', labelNames, registers })
  const pictures = new client.Counter({ name: 'kandinsky_pictures_total', help: 'pictures that were made', registers })
  const seconds = (name: string, help: string) =>
    new client.Histogram({ name, help, labelNames, buckets: BUCKETS, registers })
  const waited = seconds('kandinsky_job_wait_seconds', 'how long jobs waited for their turn')
  const ran = seconds('kandinsky_job_run_seconds', 'how long jobs ran')
  new client.Gauge({
    name: 'kandinsky_jobs',
    help: 'jobs that wait or run',
    registers,
    async collect() {
      // A queue that is out of reach has no size; the other numbers are there.
      this.set(await size().catch(() => Number.NaN))
    },
  })
  return {
    registry,
    record({ api, state, waitedMs, ranMs, pictures: made }: JobEvent) {
      jobs.inc({ api, state })
      pictures.inc(made)
      waited.observe({ api, state }, waitedMs / 1000)
      ran.observe({ api, state }, ranMs / 1000)
    },
  }
}
