//! Where the threads of one lock manager report to the loop.

use std::sync::mpsc::{SendError, Sender};

use heirlock_agent::{InstanceNumber, Message, News};

/// The loop's inbox, for what is new of one lock manager.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    of: InstanceNumber,
    messages: Sender<Message>,
}

impl Inbox {
    /// That of this lock manager.
    pub(crate) fn new(of: InstanceNumber, messages: Sender<Message>) -> Self {
        Self { of, messages }
    }

    /// The lock manager that it is of.
    pub(crate) fn of(&self) -> InstanceNumber {
        self.of
    }

    /// The loop's inbox, for any message.
    #[cfg(test)]
    pub(crate) fn messages(&self) -> Sender<Message> {
        self.messages.clone()
    }

    /// Tells the loop.
    ///
    /// # Errors
    /// Where the loop is gone.
    pub(crate) fn send(&self, news: News) -> Result<(), SendError<Message>> {
        self.messages.send(Message::Of(self.of, news))
    }
}
