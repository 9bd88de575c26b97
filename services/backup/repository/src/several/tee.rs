//! One disk for several readers, which all read it once from beginning to end.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, OnceCell};

use crate::source::{DiskSource, Extent, SourceError};

/// How far one reader may be ahead of another, and how much is buffered for the slower one.
const AHEAD_BYTES_MAX: u64 = 64 * 1024 * 1024;

const HELD: &str = "no thread panics while holding what was read";

pub(super) struct Tee {
    source: Box<dyn DiskSource>,
    state: Mutex<State>,
    /// Notified when a reader advanced, or ended.
    moved: Notify,
}

struct State {
    /// The furthest offset that each has read from; one that has ended is beyond all disks.
    positions: Vec<u64>,
    /// What one has read and others have not, the oldest first.
    kept: VecDeque<Kept>,
}

struct Kept {
    range: Range<u64>,
    content: Arc<OnceCell<Bytes>>,
    /// The readers that have not read it yet.
    wanted_by: Vec<usize>,
}

impl State {
    /// The furthest offset at which a reader may begin to read.
    fn limit(&self) -> u64 {
        self.positions.iter().min().map_or(u64::MAX, |slowest| slowest.saturating_add(AHEAD_BYTES_MAX))
    }

    /// The content of a range, which the first reader to await it reads from the source.
    fn claim(&mut self, reader: usize, range: &Range<u64>) -> Arc<OnceCell<Bytes>> {
        let known =
            self.kept.iter().position(|kept| kept.range == *range && kept.wanted_by.contains(&reader));
        if let Some(index) = known {
            let kept = &mut self.kept[index];
            kept.wanted_by.retain(|wants| *wants != reader);
            let content = Arc::clone(&kept.content);
            if kept.wanted_by.is_empty() {
                self.kept.remove(index);
            }
            return content;
        }
        let content = Arc::default();
        let others = self.positions.iter().enumerate();
        let still_comes = |at: u64| at < range.end.saturating_add(AHEAD_BYTES_MAX);
        let wanted_by: Vec<_> = others
            .filter(|(other, at)| *other != reader && still_comes(**at))
            .map(|(other, _)| other)
            .collect();
        if !wanted_by.is_empty() {
            self.kept.push_back(Kept { range: range.clone(), content: Arc::clone(&content), wanted_by });
        }
        content
    }

    fn move_to(&mut self, reader: usize, position: u64) {
        let at = &mut self.positions[reader];
        *at = position.max(*at);
        // Readers do not read exactly the same ranges: drop what none will read any more.
        let slowest = self.positions.iter().min().copied().unwrap_or(u64::MAX);
        self.kept.retain(|kept| kept.range.end.saturating_add(AHEAD_BYTES_MAX) > slowest);
        let mut bytes: u64 = self.kept.iter().map(|kept| kept.range.end - kept.range.start).sum();
        while bytes > 2 * AHEAD_BYTES_MAX
            && let Some(oldest) = self.kept.pop_front()
        {
            bytes -= oldest.range.end - oldest.range.start;
        }
    }
}

/// One reader.
pub(super) struct Reader {
    tee: Arc<Tee>,
    reader: usize,
}

impl Tee {
    pub(super) fn split(source: Box<dyn DiskSource>, readers: usize) -> Vec<Reader> {
        let state = Mutex::new(State { positions: vec![0; readers], kept: VecDeque::new() });
        let tee = Arc::new(Tee { source, state, moved: Notify::new() });
        (0..readers).map(|reader| Reader { tee: Arc::clone(&tee), reader }).collect()
    }

    /// Waits until the slowest is near enough. The slowest itself never waits.
    async fn may_read(&self, reader: usize, start: u64) {
        self.move_to(reader, start);
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            if start <= self.state.lock().expect(HELD).limit() {
                return;
            }
            moved.await;
        }
    }

    fn move_to(&self, reader: usize, position: u64) {
        self.state.lock().expect(HELD).move_to(reader, position);
        self.moved.notify_waiters();
    }
}

#[async_trait]
impl DiskSource for Reader {
    fn size_bytes(&self) -> u64 {
        self.tee.source.size_bytes()
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        self.tee.source.extents(range).await
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let Reader { tee, reader } = self;
        tee.may_read(*reader, offset).await;
        let range = offset..offset + length as u64;
        let content = tee.state.lock().expect(HELD).claim(*reader, &range);
        content.get_or_try_init(|| tee.source.read_at(offset, length)).await.cloned()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.tee.move_to(self.reader, u64::MAX);
    }
}
