//! Copies what is missing into the overlay, in the pauses between guests' requests.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use backup_repository::source::ExtentKind;
use futures::{StreamExt, TryStreamExt};
use tokio::task::JoinSet;

use super::BLOCK_BYTES;
use super::disk::{FillProgress, Overlay, blocking};
use super::error::OverlayError;
use super::local::{Content, ZeroWriteMode};

/// The map of the source is requested in windows of this size.
const WINDOW_BLOCKS: u64 = (1 << 30) / BLOCK_BYTES;
/// The first pause after a failure, and the longest: it doubles in between.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How fast to fill, and how much a guest comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FillSettings {
    /// What is read from the source at a time: a segment of a backup.
    pub step_bytes: u64,
    /// Steps under way at once: a distant store needs some.
    pub steps_in_flight: usize,
    /// How long a step waits for guests' requests to finish before it goes on nevertheless.
    pub guest_wait_timeout: Duration,
    /// Copied between two syncs: what a crash costs at most.
    pub sync_every_bytes: u64,
    /// Failures in a row, without anything copied in between, after which it ends with an error.
    pub failures_max: u32,
}

impl Default for FillSettings {
    fn default() -> FillSettings {
        FillSettings {
            step_bytes: 4 * 1024 * 1024,
            steps_in_flight: 4,
            guest_wait_timeout: Duration::from_secs(1),
            sync_every_bytes: 256 * 1024 * 1024,
            failures_max: 10,
        }
    }
}

/// The fill ended with an error. What was copied stays, and a new fill goes on from there.
#[derive(Debug, thiserror::Error)]
#[error("the overlay was not filled: {failed_attempts} attempts in a row failed")]
pub struct FillError {
    /// How often it was tried.
    pub failed_attempts: u32,
    /// Why the last attempt failed.
    #[source]
    pub source: OverlayError,
}

/// A running fill. It ends when it is done, has failed too often, or this is dropped.
#[derive(Debug)]
pub struct Fill {
    task: JoinSet<Result<(), FillError>>,
    overlay: Arc<Overlay>,
}

impl Overlay {
    /// Begins to copy what is missing. One fill at a time is enough.
    pub fn fill(self: &Arc<Overlay>, settings: FillSettings) -> Fill {
        let mut task = JoinSet::new();
        task.spawn(run(Arc::clone(self), settings));
        Fill { task, overlay: Arc::clone(self) }
    }
}

impl Fill {
    /// How far it is.
    pub fn progress(&self) -> FillProgress {
        self.overlay.presence()
    }

    /// Waits for its end: every block is present and on disk, and the source is needed no more.
    ///
    /// # Errors
    /// When it failed too often.
    pub async fn finished(mut self) -> Result<(), FillError> {
        let outcome =
            self.task.join_next().await.expect("one task was spawned, and nothing else waits for it");
        outcome.expect("filling does not panic and is not aborted while this waits")
    }
}

async fn run(overlay: Arc<Overlay>, settings: FillSettings) -> Result<(), FillError> {
    let (mut pause, longest) = BACK_OFF;
    let mut failures = 0;
    loop {
        let before = overlay.presence();
        let error = match pass(&overlay, &settings).await {
            Ok(()) => {
                tracing::info!(overlay = %overlay.path().display(), "the overlay holds the whole disk");
                return Ok(());
            }
            Err(error) => error,
        };
        if overlay.presence() != before {
            (failures, pause) = (0, BACK_OFF.0);
        }
        failures += 1;
        if failures >= settings.failures_max {
            return Err(FillError { failed_attempts: failures, source: error });
        }
        tracing::warn!(%error, failures, "filling an overlay failed; retrying after a pause");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Goes once over the disk.
async fn pass(overlay: &Overlay, settings: &FillSettings) -> Result<(), OverlayError> {
    let blocks = overlay.overlay_file.bitmap.blocks();
    let mut unsynced_bytes = 0;
    let mut at = 0;
    while at < blocks {
        let (present, end) = overlay.overlay_file.bitmap.run(at..blocks);
        let window = at..end.min(at + WINDOW_BLOCKS);
        at = if present { end } else { window.end };
        if present {
            continue;
        }
        for steps in steps(overlay, window, settings).await?.chunks(settings.steps_in_flight.max(1)) {
            let under_way =
                steps.iter().cloned().map(|step| take(overlay, step, settings.guest_wait_timeout));
            unsynced_bytes += futures::stream::iter(under_way.collect::<Vec<_>>())
                .buffer_unordered(settings.steps_in_flight.max(1))
                .try_fold(0, async |sum, bytes| Ok(sum + bytes))
                .await?;
            if unsynced_bytes >= settings.sync_every_bytes {
                overlay.flush().await?;
                unsynced_bytes = 0;
            }
        }
    }
    overlay.flush().await
}

/// Blocks to fill at once, and whether they are known to be zeros.
type Step = (Range<u64>, ExtentKind);

/// Cuts a window into steps: a block with any data in it is data.
async fn steps(
    overlay: &Overlay,
    window: Range<u64>,
    settings: &FillSettings,
) -> Result<Vec<Step>, OverlayError> {
    let extents = overlay.source.extents(overlay.overlay_file.bytes_of(&window)).await?;
    let mut runs: Vec<Step> = Vec::new();
    let mut data_end = window.start;
    let mut offset = window.start * BLOCK_BYTES;
    for extent in extents {
        let (start, end) = (offset, offset + extent.length);
        offset = end;
        if extent.kind == ExtentKind::Zero || extent.length == 0 {
            continue;
        }
        let data = (start / BLOCK_BYTES).max(data_end)..end.div_ceil(BLOCK_BYTES).min(window.end);
        if data_end < data.start {
            runs.push((data_end..data.start, ExtentKind::Zero));
        }
        if !data.is_empty() {
            runs.push((data.clone(), ExtentKind::Data));
            data_end = data.end;
        }
    }
    if data_end < window.end {
        runs.push((data_end..window.end, ExtentKind::Zero));
    }
    let step_blocks = (settings.step_bytes / BLOCK_BYTES).max(1);
    let cut = runs.into_iter().flat_map(|(run, kind)| {
        let length = if kind == ExtentKind::Zero { WINDOW_BLOCKS } else { step_blocks };
        let starts = run.clone().step_by(length as usize);
        starts.map(move |start| (start..run.end.min(start + length), kind))
    });
    Ok(cut.collect())
}

/// Copies a step and returns how many bytes were read for it.
async fn take(overlay: &Overlay, (blocks, kind): Step, yield_timeout: Duration) -> Result<u64, OverlayError> {
    overlay.guest_requests.quiet(yield_timeout).await;
    let (present, end) = overlay.overlay_file.bitmap.run(blocks.clone());
    if present && end == blocks.end {
        return Ok(0);
    }
    let bytes = overlay.overlay_file.bytes_of(&blocks);
    let length = bytes.end - bytes.start;
    let content = match kind {
        ExtentKind::Zero => Content::Zeros(ZeroWriteMode::Sparse),
        ExtentKind::Data => Content::Bytes(overlay.read_below(bytes.start, length as usize).await?),
    };
    let local = Arc::clone(&overlay.overlay_file);
    blocking(move || local.fill(blocks, &content)).await?;
    Ok(if kind == ExtentKind::Data { length } else { 0 })
}
