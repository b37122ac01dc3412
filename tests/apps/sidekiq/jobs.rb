# The jobs, and where Redis is: REDIS_URL of the environment. Both the worker and who gives it work read this.

require "sidekiq"

# A worker waits on all its queues at once; the hash tag has them in one slot.
HIGH, LOW = "{sidekiq}-high", "{sidekiq}-low"

# The Redis gem's opinion of Sidekiq, once a job.
Redis.silence_deprecations = true

Sidekiq.configure_server do |config|
  config.average_scheduled_poll_interval = 1
end

module Recorded
  # Unless it is told otherwise, a job is in no hurry.
  def self.included(job)
    job.include Sidekiq::Job
    job.sidekiq_options queue: LOW
  end

  def record(key, value)
    Sidekiq.redis { |redis| redis.rpush(key, value) }
  end
end

class Note
  include Recorded

  def perform(key, value)
    record(key, value)
  end
end

class Urgent
  include Recorded
  sidekiq_options queue: HIGH

  def perform(key)
    record(key, "urgent")
  end
end

class Late
  include Recorded

  def perform(key, due)
    record(key, Time.now.to_f - due)
  end
end

# Fails at first.
class Again
  include Recorded
  sidekiq_options retry: 5
  sidekiq_retry_in { 1 }

  def perform(key, attempts)
    tried = Sidekiq.redis { |redis| redis.incr("#{key}:tried") }
    raise "attempt #{tried}" if tried < attempts

    record(key, tried)
  end
end

# Fails, and is not tried again.
class Hopeless
  include Recorded
  sidekiq_options retry: 0

  def perform
    raise "as it should"
  end
end

# Takes longer than a worker lives, the first time.
class Long
  include Recorded

  def perform(key)
    sleep(600) if Sidekiq.redis { |redis| redis.incr("#{key}:begun") } == 1
    record(key, "done")
  end
end
