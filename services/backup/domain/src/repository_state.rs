//! What is known of the repository, and whether that answers a question: the state behind the `RepositoryKeeper`.
//!
//! ```text
//!   closed (why) --refresh done--> open (content) --refresh done--> open (newer content)
//!        ^------------------------------/ refresh failed
//!
//!   question --> ready: content that is new enough | closed: why | after: the refresh that will answer it
//! ```
//!
//! Refreshes are numbered. A refresh shows what was reported before it began; so a question that the content at hand
//! does not answer waits for a refresh that begins later. Time is an argument.

/// How new an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredFreshness {
    /// It shows every change that was reported.
    Cached,
    /// It is read from the store after the question: other hosts write there, too.
    JustRead,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepositoryLookup<T> {
    /// This content answers it.
    Found(T),
    /// The repository cannot be used, for this reason.
    Closed(String),
    /// The refresh of this number will answer it.
    AfterRefresh(u64),
}

/// What a refresh changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryTransition {
    /// The repository was closed and is open.
    Opened,
    /// It was open, or nothing was known of it, and it is closed.
    Closed,
    /// It is as it was, open or closed.
    Unchanged,
}

/// What is known of the repository, with content `T` while it is open.
#[derive(Clone, Debug)]
pub struct RepositoryState<T> {
    content: Result<T, String>,
    /// Changes that were reported.
    changes: u64,
    /// Those that the content shows.
    changes_shown: u64,
    /// Refreshes that began.
    began: u64,
    /// The number of the last refresh that ended.
    ended: u64,
    /// Changes that had been reported when the refresh under way began.
    under_way: Option<u64>,
}

impl<T: Clone> RepositoryState<T> {
    /// Closed, because no refresh has ended yet.
    pub fn new() -> Self {
        RepositoryState {
            content: Err("it is being opened".into()),
            changes: 0,
            changes_shown: 0,
            began: 0,
            ended: 0,
            under_way: None,
        }
    }

    /// Notes that the store's content changed, or that the store may not be healthy.
    pub fn change(&mut self) {
        self.changes += 1;
    }

    /// Begins a refresh. One that never ended, because it was cut off, is forgotten.
    pub fn begin(&mut self) {
        self.began += 1;
        self.under_way = Some(self.changes);
    }

    /// Ends the refresh under way with what it found.
    pub fn end(&mut self, found: Result<T, String>) -> RepositoryTransition {
        let transition = match (&self.content, &found) {
            (Err(_), Ok(_)) => RepositoryTransition::Opened,
            (Ok(_), Err(_)) => RepositoryTransition::Closed,
            (Err(_), Err(_)) if self.ended == 0 => RepositoryTransition::Closed,
            _ => RepositoryTransition::Unchanged,
        };
        self.content = found;
        self.changes_shown = self.under_way.take().unwrap_or(self.changes_shown);
        self.ended = self.began;
        transition
    }

    /// The content, or why there is none.
    pub fn content(&self) -> &Result<T, String> {
        &self.content
    }

    /// Answers a question that is asked now.
    pub fn answer(&self, freshness: RequiredFreshness) -> RepositoryLookup<T> {
        let content = match &self.content {
            Ok(content) => content,
            Err(reason) => return RepositoryLookup::Closed(reason.clone()),
        };
        let is_complete = self.changes_shown == self.changes;
        match freshness {
            RequiredFreshness::Cached if is_complete => RepositoryLookup::Found(content.clone()),
            RequiredFreshness::Cached if self.under_way == Some(self.changes) => {
                RepositoryLookup::AfterRefresh(self.began)
            }
            _ => RepositoryLookup::AfterRefresh(self.began + 1),
        }
    }

    /// Answers a question that waits for the refresh of a number, once that has ended; at once where the repository
    /// is closed.
    pub fn answer_after(&self, refresh: u64) -> Option<Result<T, String>> {
        (self.ended >= refresh || self.content.is_err()).then(|| self.content.clone())
    }
}

impl<T: Clone> Default for RepositoryState<T> {
    fn default() -> Self {
        RepositoryState::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refresh(state: &mut RepositoryState<u32>, found: Result<u32, String>) -> RepositoryTransition {
        state.begin();
        state.end(found)
    }

    fn open() -> RepositoryState<u32> {
        let mut state = RepositoryState::new();
        assert_eq!(refresh(&mut state, Ok(1)), RepositoryTransition::Opened);
        state
    }

    #[test]
    fn a_repository_that_nobody_opened_yet_is_closed_and_says_so_at_once() {
        let mut state = RepositoryState::<u32>::new();
        let closed = RepositoryLookup::Closed("it is being opened".into());
        assert_eq!(state.answer(RequiredFreshness::JustRead), closed);
        state.begin();
        assert_eq!(state.answer(RequiredFreshness::Cached), closed);
    }

    #[test]
    fn opening_and_closing_are_reported_once() {
        let mut state = RepositoryState::new();
        let away = || Err("away".to_string());
        assert_eq!(refresh(&mut state, away()), RepositoryTransition::Closed, "the first refresh says why");
        assert_eq!(refresh(&mut state, away()), RepositoryTransition::Unchanged);
        assert_eq!(refresh(&mut state, Ok(1)), RepositoryTransition::Opened);
        assert_eq!(refresh(&mut state, Ok(2)), RepositoryTransition::Unchanged);
        assert_eq!(refresh(&mut state, away()), RepositoryTransition::Closed);
        assert_eq!(state.answer(RequiredFreshness::Cached), RepositoryLookup::Closed("away".into()));
    }

    #[test]
    fn content_at_hand_answers_however_old_it_is_while_nothing_changed() {
        let mut state = open();
        assert_eq!(state.answer(RequiredFreshness::Cached), RepositoryLookup::Found(1));
        state.begin();
        assert_eq!(
            state.answer(RequiredFreshness::Cached),
            RepositoryLookup::Found(1),
            "also during a refresh"
        );
    }

    #[test]
    fn a_fresh_answer_comes_from_a_refresh_that_begins_later() {
        let mut state = open();
        assert_eq!(state.answer(RequiredFreshness::JustRead), RepositoryLookup::AfterRefresh(2));
        state.begin();
        assert_eq!(
            state.answer(RequiredFreshness::JustRead),
            RepositoryLookup::AfterRefresh(3),
            "this one may have listed already"
        );
        state.end(Ok(2));
        assert_eq!(state.answer_after(3), None);
        refresh(&mut state, Ok(3));
        assert_eq!(state.answer_after(3), Some(Ok(3)));
    }

    #[test]
    fn a_reported_change_is_shown_by_the_first_refresh_that_began_after_it() {
        let mut state = open();
        state.change();
        assert_eq!(state.answer(RequiredFreshness::Cached), RepositoryLookup::AfterRefresh(2));
        state.begin();
        assert_eq!(
            state.answer(RequiredFreshness::Cached),
            RepositoryLookup::AfterRefresh(2),
            "it began after the change"
        );
        state.change();
        assert_eq!(
            state.answer(RequiredFreshness::Cached),
            RepositoryLookup::AfterRefresh(3),
            "it began before the second"
        );
        state.end(Ok(2));
        assert_eq!(state.answer(RequiredFreshness::Cached), RepositoryLookup::AfterRefresh(3));
        refresh(&mut state, Ok(3));
        assert_eq!(state.answer(RequiredFreshness::Cached), RepositoryLookup::Found(3));
    }

    #[test]
    fn whoever_waits_is_answered_when_the_repository_closes() {
        let mut state = open();
        state.change();
        refresh(&mut state, Err("away".into()));
        assert_eq!(state.answer_after(9), Some(Err("away".into())));
    }

    #[test]
    fn a_refresh_that_was_cut_off_shows_nothing() {
        let mut state = open();
        state.change();
        state.begin();
        state.begin();
        assert_eq!(state.answer(RequiredFreshness::Cached), RepositoryLookup::AfterRefresh(3));
        state.end(Ok(2));
        assert_eq!(state.answer(RequiredFreshness::Cached), RepositoryLookup::Found(2));
    }
}
