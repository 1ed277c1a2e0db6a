// All pipelines of 2.2 against recorded runs of diffusers.
import { testRecordedRuns } from '../helpers/recorded-runs.mjs'

testRecordedRuns(/^KandinskyV22\w*Pipeline$/)
