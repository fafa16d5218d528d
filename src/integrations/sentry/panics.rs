//! Panics (section 4): each is reported from the thread where it happens, which goes on at once with its other clients. What takes long, finding
//! the names that belong to the addresses of the stack, is left to the transport's thread.

use std::cell::Cell;
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

use ::sentry::integrations::backtrace::{backtrace_to_stacktrace, process_event_stacktrace};
use ::sentry::protocol::{Event, Exception, Mechanism, Stacktrace};
use ::sentry::{ClientOptions, Hub, Level};
use backtrace::Backtrace;

/// Where the names begin that are the panic's own.
const MACHINERY: [&str; 2] = ["core::panicking::", "rust_begin_unwind"];

thread_local! {
    /// The stack of the panic that this thread reports at the moment: an event has no room for one without names.
    static STACK: Cell<Option<Backtrace>> = const { Cell::new(None) };
}

/// Reports panics from now on, before whatever else is done about them.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if super::is_on() {
                report(info);
            }
            next(info);
        }));
    });
}

fn report(info: &PanicHookInfo<'_>) {
    let exception = Exception {
        ty: "panic".to_owned(),
        value: Some(info.payload_as_str().unwrap_or("no text").to_owned()),
        mechanism: Some(Mechanism { ty: "panic".to_owned(), handled: Some(false), ..Mechanism::default() }),
        ..Exception::default()
    };
    let culprit = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
    let event = Event { exception: vec![exception].into(), culprit, level: Level::Fatal, ..Event::default() };
    STACK.set(Some(Backtrace::new_unresolved()));
    Hub::current().capture_event(event);
    STACK.take();
}

/// The stack that belongs to the event which this thread hands on.
pub(super) fn stack() -> Option<Backtrace> {
    STACK.take()
}

/// Puts names to a stack, without what is there only because of the panic.
pub(super) fn named(mut stack: Backtrace) -> Option<Stacktrace> {
    stack.resolve();
    let mut trace = backtrace_to_stacktrace(&stack)?;
    let is_machinery = |function: &String| MACHINERY.iter().any(|name| function.contains(name));
    if let Some(end) = trace.frames.iter().position(|frame| frame.function.as_ref().is_some_and(is_machinery)) {
        trace.frames.truncate(end);
    }
    process_event_stacktrace(&mut trace, &ClientOptions::new().in_app_include(vec!["herald"]));
    Some(trace)
}
