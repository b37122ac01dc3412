# Sidekiq: a worker process of five threads, and what it is given to do.
#
# Usage: main.rb HOST PORT. Prints a line a check; ends with 1 at the first that fails.

require "tempfile"

host, port = ARGV
ENV["REDIS_URL"] = "redis://#{host}:#{port}/0"

require_relative "jobs"
require "sidekiq/api"

LIMIT = 40
LOG = Tempfile.new("sidekiq")

# A worker process.
class Worker
  def initialize
    command = ["sidekiq", "-r", File.join(__dir__, "jobs.rb"), "-c", "5", "-t", "4", "-q", "#{HIGH},3", "-q", LOW]
    @pid = Process.spawn(*command, %i[out err] => [LOG.path, "a"])
  end

  # It has four seconds to finish what it does; what it does not finish goes back to its queue. By then its idle
  # threads wait for no more, two seconds at a time: one that waited would take that, and end.
  def stop
    Process.kill("TERM", @pid)
    within(LIMIT) { Process.wait(@pid, Process::WNOHANG) }
    raise "it ended with #{$?}" unless $?.success?

    @pid = nil
  end

  def kill
    return unless @pid

    Process.kill("KILL", @pid)
    Process.wait(@pid)
  end
end

def within(seconds)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
  until (value = yield)
    raise "it does not happen" if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

    sleep 0.05
  end
  value
end

def check(what, expected, found)
  raise "#{what}: #{found.inspect}, not #{expected.inspect}" unless expected == found
end

# What jobs have recorded, when there are so many of them.
def recorded(key, count)
  Sidekiq.redis do |redis|
    within(LIMIT) { redis.llen(key) >= count }
    redis.lrange(key, 0, -1)
  end
end

def jobs
  100.times { |n| Note.perform_async("notes", n) }
  Note.perform_bulk((100...300).map { |n| ["notes", n] })
  20.times { Urgent.perform_async("urgent") }
  check("queues", [HIGH, LOW], Sidekiq::Queue.all.map(&:name).sort)
  check("its queue", 300, Sidekiq::Queue.new(LOW).size)
  check("the first in it", ["notes", 0], Sidekiq::Queue.new(LOW).to_a.last.args)
  unwanted = Note.perform_async("unwanted", 1)
  check("deleted", true, !!Sidekiq::Queue.new(LOW).find_job(unwanted).delete)
  yield # somebody does them
  check("each done once", (0...300).to_a, recorded("notes", 300).map(&:to_i).sort)
  check("the urgent ones", 20, recorded("urgent", 20).size)
  within(LIMIT) { Sidekiq::Queue.all.sum(&:size).zero? }
  check("the unwanted", 0, Sidekiq.redis { |redis| redis.llen("unwanted") })
end

def schedules
  Late.perform_in(2, "late", Time.now.to_f + 2)
  Late.perform_at(Time.now + 1, "late", Time.now.to_f + 1)
  far = Late.perform_in(3600, "late", 0)
  check("scheduled", 3, Sidekiq::ScheduledSet.new.size)
  check("early", [], recorded("late", 2).select { |late| late.to_f < -0.01 })
  check("the far one", 3600, Sidekiq::ScheduledSet.new.find_job(far).then { |job| (job.at - job.created_at).round })
  Sidekiq::ScheduledSet.new.find_job(far).delete
  check("none", 0, Sidekiq::ScheduledSet.new.size)
end

def failures
  Again.perform_async("again", 3)
  Hopeless.perform_async
  check("attempts", ["3"], recorded("again", 1))
  within(LIMIT) { Sidekiq::DeadSet.new.size == 1 }
  dead = Sidekiq::DeadSet.new.first
  check("why", "as it should", dead.item["error_message"])
  within(LIMIT) { Sidekiq::RetrySet.new.size.zero? }
  dead.retry
  within(LIMIT) { Sidekiq::DeadSet.new.size == 1 && Sidekiq::DeadSet.new.first.item["retry_count"] == 0 }
  Sidekiq::DeadSet.new.clear
end

# What the worker tells of itself, every five seconds.
def heartbeat
  within(LIMIT) { Sidekiq::Stats.new.processed >= 320 }
  check("failed", true, Sidekiq::Stats.new.failed >= 3)
  process = Sidekiq::ProcessSet.new.first
  check("processes", 1, Sidekiq::ProcessSet.new.size)
  check("its threads", 5, process["concurrency"])
  check("its queues", [HIGH, LOW], process["queues"].uniq.sort)
  check("history", true, Sidekiq::Stats::History.new(1).processed.values.first >= 320)
end

def a_stopped_worker(worker)
  Long.perform_async("long")
  within(LIMIT) { Sidekiq.redis { |redis| redis.get("long:begun") } == "1" }
  within(LIMIT) { Sidekiq::Workers.new.size == 1 } # the next heartbeat
  worker.stop
  check("back in its queue", 1, Sidekiq::Queue.new(LOW).size)
  successor = Worker.new
  check("the long one", ["done"], recorded("long", 1))
  successor.stop
  check("processes", 0, Sidekiq::ProcessSet.new.size)
ensure
  successor&.kill
end

def ok(what)
  puts "ok sidekiq #{Sidekiq::VERSION} #{what}"
  $stdout.flush
end

begin
  worker = nil
  jobs { worker = Worker.new }
  ok "jobs"
  schedules
  ok "schedules"
  failures
  ok "failures"
  heartbeat
  ok "heartbeat"
  a_stopped_worker(worker)
  ok "a_stopped_worker"
rescue
  warn "The worker's log ends with:", *File.readlines(LOG.path).last(100)
  raise
ensure
  worker&.kill
end
