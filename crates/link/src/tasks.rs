//! Every task has an owner that can stop it and wait for it.
//!
//! The only place that spawns. A panic in a task ends that task: the runtime
//! catches it, and whoever waits for the group still gets its answer.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks with one stop signal. Clones share the group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// A group of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A group that is stopped with this one but waited for apart: whoever
    /// makes it must close it within a task of this group.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: self.stop.child_token(),
        }
    }

    /// Starts `task` on the current runtime; it should end soon after
    /// [`Tasks::stopping`] completes.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Starts `task` on another runtime.
    pub fn spawn_on(&self, handle: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(task, handle);
    }

    /// Starts `task`, which is dropped where it stands when the group stops.
    pub fn spawn_until_stopped(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// The group's stop signal.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Tells all tasks to stop and waits for them; false when some had not
    /// ended at the deadline.
    pub async fn close(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.drained(deadline).await
    }

    /// Waits until the tasks have ended by themselves; no new one may follow.
    pub async fn drained(&self, deadline: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_its_task_only() {
        let tasks = Tasks::new();
        tasks.spawn(async { panic!("on purpose") });
        let stop = tasks.stopping().clone();
        tasks.spawn(async move { stop.cancelled().await });
        assert!(tasks.close(Duration::from_secs(5)).await);
        assert!(tasks.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_reported() {
        let tasks = Tasks::new();
        tasks.spawn(std::future::pending());
        assert!(!tasks.close(Duration::from_secs(1)).await);
        assert_eq!(tasks.len(), 1);
    }
}
