//! How many streams a link carries now.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The streams that a link carries now.
#[derive(Debug, Default)]
pub struct Uses {
    count: AtomicUsize,
    first: Notify,
}

impl Uses {
    /// How many.
    pub(crate) fn now(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Ready while there are some; one task may wait.
    pub(crate) async fn some(&self) {
        while self.now() == 0 {
            self.first.notified().await;
        }
    }
}

/// Counts one stream in use, until dropped.
#[derive(Debug)]
pub(crate) struct Usage(Arc<Uses>);

impl Usage {
    pub(crate) fn of(uses: &Arc<Uses>) -> Self {
        if uses.count.fetch_add(1, Ordering::Relaxed) == 0 {
            uses.first.notify_one();
        }
        Self(Arc::clone(uses))
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}
