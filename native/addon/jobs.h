// Work that runs on its own thread and ends in a promise.
//
// Not Napi::AsyncWorker: it would hold one of libuv's four threads for as long as a network runs (file reads and image
// decoding wait behind it), and Node waits for such work before it runs any cleanup hook, so that terminating a worker
// would hang until the step is done instead of cancelling it.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <thread>

#include "addon/napi_setup.h"
#include "core/error.h"

namespace kandinsky::addon {

/// Runs `body` and turns whatever it throws into an Error of the engine; nothing if it throws nothing.
std::optional<Error> catch_error(const std::function<void()>& body);

/// A JavaScript Error with `code`; src/native.ts turns it into a KandinskyError.
Napi::Error to_js_error(Napi::Env env, const Error& error);

using CancelToken = std::shared_ptr<std::atomic<bool>>;

class Job;

/// Jobs of one queue run one after the other, in the order in which they were started.
struct JobQueue {
  std::deque<std::unique_ptr<Job>> waiting;
  bool busy = false;
};

/// Created, settled and destroyed on the JavaScript thread (it may hold references to JavaScript values); only
/// execute() runs elsewhere.
class Job {
 public:
  explicit Job(Napi::Env env) : deferred_(Napi::Promise::Deferred::New(env)) {}
  virtual ~Job() = default;

  CancelToken cancel = std::make_shared<std::atomic<bool>>(false);
  std::shared_ptr<JobQueue> queue;      // empty: starts at once
  Napi::FunctionReference on_progress;  // may be empty

 protected:
  /// On the job's thread. What it throws rejects the promise.
  virtual void execute() = 0;
  /// On the JavaScript thread after execute() succeeded: the promise's value.
  virtual Napi::Value result(Napi::Env env) { return env.Undefined(); }
  /// On the job's thread: calls on_progress on the JavaScript thread, at most every 50 ms and always for the last one
  /// (done == total); never after the promise is settled.
  void report_progress(uint64_t done, uint64_t total);

 private:
  friend class Jobs;
  struct Message {
    Job* job;
    bool finished;
  };

  Napi::Promise::Deferred deferred_;
  class Jobs* jobs_ = nullptr;
  std::thread thread_;
  std::optional<Error> error_;
  std::optional<Napi::Error> callback_error_;  // thrown by on_progress; it cancels the job and becomes the rejection
  Message progress_message_{this, false}, finished_message_{this, true};
  std::atomic<uint64_t> progress_done_{0}, progress_total_{0};
  std::atomic<bool> progress_posted_{false};
  std::chrono::steady_clock::time_point progress_time_{};
};

/// The running jobs of one JavaScript environment (main thread or worker).
class Jobs {
 public:
  explicit Jobs(Napi::Env env);
  Jobs(const Jobs&) = delete;
  Jobs& operator=(const Jobs&) = delete;

  Napi::Promise start(std::unique_ptr<Job> job);
  /// Cancels every job and waits until their threads have ended. Touches no JavaScript value.
  void stop();

 private:
  friend class Job;
  static void receive(Napi::Env env, Napi::Function, Jobs* jobs, Job::Message* message);
  using Mailbox = Napi::TypedThreadSafeFunction<Jobs, Job::Message, &Jobs::receive>;

  void launch(std::unique_ptr<Job> job);
  void progress(Napi::Env env, Job& job);
  void finish(Napi::Env env, Job& job);
  void settle(Napi::Env env, Job& job);
  void start_next(JobQueue& queue);

  Napi::Env env_;
  Mailbox mailbox_;  // first in, first out: a job's progress arrives before its end
  std::list<std::unique_ptr<Job>> running_;
  bool stopped_ = false;
};

}  // namespace kandinsky::addon
