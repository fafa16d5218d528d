//! The scripts, loaded by their SHA: one for each change that has to happen as a whole. What they share stands in scripts/library.lua.

use redis::Script;

macro_rules! scripts {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Every script.
        #[derive(Debug)]
        pub(super) struct Scripts {
            $($(#[doc = $doc])+ pub(super) $name: Script,)+
        }

        impl Scripts {
            pub(super) fn new() -> Self {
                Self {
                    $($name: Script::new(concat!(
                        include_str!("scripts/library.lua"),
                        include_str!(concat!("scripts/", stringify!($name), ".lua")),
                    )),)+
                }
            }
        }
    };
}

scripts! {
    /// What a node has of a channel.
    channel,
    /// What a node has of a user.
    user,
    /// How many connections of an app a node has.
    connections,
    /// A node's sign of life.
    beat,
    /// Hands a bucket over.
    give,
    /// What Redis holds of a node.
    audit,
    /// Cleans up after a dead node.
    reap,
    /// Does what has become due.
    due,
    /// Publishes and keeps, or publishes once.
    publish,
    /// Puts an event for webhooks into the stream.
    report,
    /// Limits a rate.
    rate,
    /// Asks to run under an idempotency key.
    claim,
    /// Ends a run.
    answered,
    /// A node ends in order.
    bye,
    /// Which database a node has.
    store,
}
