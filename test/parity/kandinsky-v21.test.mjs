// All pipelines of 2.1 against recorded runs of diffusers.
import { testRecordedRuns } from '../helpers/recorded-runs.mjs'

testRecordedRuns(/^Kandinsky(?!V22|\d)\w*Pipeline$/)
