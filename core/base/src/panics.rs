//! Panics that stay where they happen: one bad request or one bad key must not end the process' work.
//!
//! A panic is a bug, and a bug in the handling of one object must not stop the handling of the others. [`catch`] runs a
//! future and turns a panic into a value that says where and why, with the stack at that point. It is used at two
//! places only: around a request's handler and around a controller's run of one key. State that a panicking closure
//! leaves behind is of no concern there: what lasts is in the store, written by whole transactions.

use std::{
    any::Any,
    backtrace::Backtrace,
    cell::{Cell, RefCell},
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};

/// A panic that was caught.
#[derive(Debug, Clone, thiserror::Error)]
#[error("panicked at {location}: {message}")]
pub struct Panicked {
    /// What the panic said.
    pub message: String,
    /// File, line and column.
    pub location: String,
    /// The stack, for the first panic at each place (or each, with `RUST_BACKTRACE=1`); empty otherwise: a place that
    /// panics again and again must not cost a symbol look-up each time.
    pub backtrace: String,
}

thread_local! {
    /// How many [`catch`]es are on this thread's stack.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
    /// What the hook saw of the panic that is unwinding now.
    static LAST: RefCell<Option<Panicked>> = const { RefCell::new(None) };
}

static INSTALLED: Once = Once::new();
static CAUGHT: AtomicU64 = AtomicU64::new(0);
/// Places whose stack has been shown; bounded, since it is keyed by source lines.
static SHOWN: Mutex<Option<HashSet<String>>> = Mutex::new(None);

/// How many panics were caught since the process began.
#[must_use]
pub fn caught() -> u64 {
    CAUGHT.load(Ordering::Relaxed)
}

/// Counts a [`catch`] in and, when dropped, out.
struct Scope;

impl Scope {
    fn enter() -> Self {
        CATCHING.with(|c| c.set(c.get() + 1));
        Self
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        CATCHING.with(|c| c.set(c.get().saturating_sub(1)));
    }
}

/// Runs a future to its end, or to its panic.
///
/// # Errors
/// The panic, if there was one. The future is dropped then, not polled again.
pub async fn catch<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = std::pin::pin!(Some(future));
    std::future::poll_fn(move |context| {
        let outcome = run(|| match future.as_mut().as_pin_mut() {
            Some(future) => future.poll(context),
            None => Poll::Pending,
        });
        let outcome = match outcome {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(value)) => Ok(value),
            Err(panicked) => Err(panicked),
        };
        // What the future owns is dropped in here, because a destructor can panic as well.
        let dropped = run(|| future.as_mut().set(None));
        Poll::Ready(outcome.and_then(|value| dropped.map(|()| value)))
    })
    .await
}

/// Runs a closure to its end, or to its panic.
///
/// # Errors
/// The panic, if there was one.
pub fn run<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    INSTALLED.call_once(install);
    let scope = Scope::enter();
    let outcome = catch_unwind(AssertUnwindSafe(work));
    drop(scope);
    outcome.map_err(|payload| {
        CAUGHT.fetch_add(1, Ordering::Relaxed);
        LAST.with(RefCell::take).unwrap_or_else(|| Panicked {
            // `resume_unwind` calls no hook.
            message: text(&*payload),
            location: "an unknown place".to_owned(),
            backtrace: String::new(),
        })
    })
}

/// Puts our hook before the one that is there; panics that nobody catches go on to it.
fn install() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if CATCHING.with(Cell::get) == 0 {
            before(info);
            return;
        }
        let location = info
            .location()
            .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let backtrace = if first_at(&location) {
            Backtrace::force_capture()
        } else {
            Backtrace::capture()
        };
        let backtrace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => backtrace.to_string(),
            _ => String::new(),
        };
        let seen = Panicked {
            message: text(info.payload()),
            location,
            backtrace,
        };
        LAST.with(|last| *last.borrow_mut() = Some(seen));
    }));
}

fn first_at(location: &str) -> bool {
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let shown = shown.get_or_insert_with(HashSet::new);
    shown.len() < 1_024 && shown.insert(location.to_owned())
}

fn text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "(no message)".to_owned()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_value_with_place_message_and_stack() {
        let before = caught();
        let panicked = run(|| -> u32 { panic!("bad key {}", 7) }).unwrap_err();
        assert_eq!(panicked.message, "bad key 7");
        assert!(panicked.location.contains("panics.rs:"), "{panicked:?}");
        assert!(panicked.backtrace.contains("panics"), "{panicked:?}");
        assert!(caught() > before);
        assert_eq!(run(|| 3).unwrap(), 3);
    }

    #[test]
    fn the_stack_of_a_place_is_taken_once() {
        let again = || run(|| -> u32 { panic!("again") }).unwrap_err();
        let (first, second) = (again(), again());
        assert!(!first.backtrace.is_empty());
        assert!(second.backtrace.is_empty() || std::env::var_os("RUST_BACKTRACE").is_some());
    }

    #[test]
    fn a_panic_of_a_destructor_is_caught_too() {
        struct Bad;
        impl Future for Bad {
            type Output = ();
            fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<()> {
                panic!("while polling");
            }
        }
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("while dropping");
            }
        }
        let mut future = std::pin::pin!(catch(Bad));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Err(panicked)) = future.as_mut().poll(&mut context) else {
            panic!("not caught")
        };
        assert_eq!(panicked.message, "while polling");
    }

    #[test]
    fn a_panic_after_an_await_is_caught_too() {
        let future = catch(async {
            std::future::ready(()).await;
            if caught() < u64::MAX {
                panic!("late");
            }
        });
        let mut future = std::pin::pin!(future);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Err(panicked)) = future.as_mut().poll(&mut context) else {
            panic!("not caught")
        };
        assert_eq!(panicked.message, "late");
    }
}
