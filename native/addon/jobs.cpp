#include "addon/jobs.h"

#include <algorithm>
#include <new>
#include <stdexcept>

namespace kandinsky::addon {

namespace {

// Made before they are needed: copies of them take no memory.
const Error not_enough_memory(ErrorCode::out_of_memory, "Not enough memory");
const Error unknown_exception(ErrorCode::internal, "Unknown exception");

Error to_error(const std::exception& error) {
  try {
    return Error(ErrorCode::internal, error.what());
  } catch (const std::bad_alloc&) {
    return not_enough_memory;
  }
}

}  // namespace

std::optional<Error> catch_error(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  } catch (const Napi::Error&) {
    throw;  // already JavaScript's own
  } catch (const std::bad_alloc&) {
    return not_enough_memory;
  } catch (const std::length_error&) {
    return not_enough_memory;
  } catch (const std::exception& error) {
    return to_error(error);
  } catch (...) {
    return unknown_exception;
  }
  return std::nullopt;
}

Napi::Error to_js_error(Napi::Env env, const Error& error) {
  Napi::Error result = Napi::Error::New(env, error.what());
  result.Set("code", error_code_name(error.code));
  return result;
}

void Job::report_progress(uint64_t done, uint64_t total) {
  const auto now = std::chrono::steady_clock::now();
  if (on_progress.IsEmpty() || (done < total && now - progress_time_ < std::chrono::milliseconds(50))) return;
  progress_time_ = now;
  progress_done_ = done;
  progress_total_ = total;
  if (!progress_posted_.exchange(true)) jobs_->mailbox_.NonBlockingCall(&progress_message_);
}

Jobs::Jobs(Napi::Env env) : env_(env), mailbox_(Mailbox::New(env, "kandinsky", 0, 1, this)) {
  mailbox_.Unref(env);
  // A worker that is terminated runs this hook. Hooks run last in, first out: the threads end while the mailbox they
  // post to is still there.
  env.AddCleanupHook(
      [](Jobs* jobs) {
        jobs->stop();
        jobs->running_.clear();
      },
      this);
  // process.exit() runs no hook, only this event; a thread that still computes would then use what static destructors
  // have already destroyed (ggml's backend registry).
  const Napi::Object process = env.Global().Get("process").As<Napi::Object>();
  const Napi::Function on_exit = Napi::Function::New(env, [this](const Napi::CallbackInfo&) { stop(); });
  process.Get("on").As<Napi::Function>().Call(process, {Napi::String::New(env, "exit"), on_exit});
}

Napi::Promise Jobs::start(std::unique_ptr<Job> job) {
  const Napi::Promise promise = job->deferred_.Promise();
  if (stopped_) return promise;  // only reachable from the process's last 'exit' listeners
  job->jobs_ = this;
  const std::shared_ptr<JobQueue> queue = job->queue;
  if (queue && queue->busy) {
    queue->waiting.push_back(std::move(job));
  } else {
    if (queue) queue->busy = true;
    launch(std::move(job));
  }
  return promise;
}

void Jobs::launch(std::unique_ptr<Job> job) {
  if (running_.empty()) mailbox_.Ref(env_);  // the process stays alive while something runs
  running_.push_back(std::move(job));
  Job* current = running_.back().get();
  const auto no_thread = catch_error([&] {
    current->thread_ = std::thread([this, current] {
      current->error_ = catch_error([&] { current->execute(); });
      mailbox_.NonBlockingCall(&current->finished_message_);
    });
  });
  if (!no_thread) return;
  current->error_ = no_thread;
  mailbox_.NonBlockingCall(&current->finished_message_);
}

void Jobs::stop() {
  stopped_ = true;
  for (const auto& job : running_) *job->cancel = true;
  for (const auto& job : running_) {
    if (job->thread_.joinable()) job->thread_.join();
  }
}

void Jobs::receive(Napi::Env env, Napi::Function, Jobs* jobs, Job::Message* message) {
  // Without an environment, or after stop(), what is still in the mailbox belongs to nobody.
  if (env == nullptr || jobs->stopped_) return;
  const Napi::HandleScope scope(env);
  if (message->finished) {
    jobs->finish(env, *message->job);
  } else {
    jobs->progress(env, *message->job);
  }
}

void Jobs::progress(Napi::Env env, Job& job) {
  job.progress_posted_ = false;
  if (job.callback_error_) return;
  try {
    const double done = static_cast<double>(job.progress_done_), total = static_cast<double>(job.progress_total_);
    job.on_progress.Call({Napi::Number::New(env, done), Napi::Number::New(env, total)});
  } catch (const Napi::Error& error) {
    job.callback_error_ = error;
    *job.cancel = true;
  }
}

void Jobs::finish(Napi::Env env, Job& finished) {
  const auto position =
      std::find_if(running_.begin(), running_.end(), [&](const auto& job) { return job.get() == &finished; });
  const std::unique_ptr<Job> job = std::move(*position);
  running_.erase(position);
  if (job->thread_.joinable()) job->thread_.join();
  settle(env, *job);
  if (job->queue) start_next(*job->queue);
  if (running_.empty()) mailbox_.Unref(env);
}

void Jobs::settle(Napi::Env env, Job& job) {
  try {
    if (job.callback_error_) throw *job.callback_error_;
    Napi::Value value;
    if (!job.error_) job.error_ = catch_error([&] { value = job.result(env); });
    if (job.error_) throw to_js_error(env, *job.error_);
    job.deferred_.Resolve(value);
  } catch (const Napi::Error& error) {
    try {
      job.deferred_.Reject(error.Value());
    } catch (const Napi::Error&) {
      // The environment is being terminated: no JavaScript is left to hear of it.
    }
  }
}

void Jobs::start_next(JobQueue& queue) {
  queue.busy = !queue.waiting.empty();
  if (!queue.busy) return;
  std::unique_ptr<Job> next = std::move(queue.waiting.front());
  queue.waiting.pop_front();
  launch(std::move(next));
}

}  // namespace kandinsky::addon
