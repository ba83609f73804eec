//! The way out of one call, from the supervisor's side, and the first and last words of the process behind it.
//!
//! Dropping it ends that process and with it every connection of the call. What it says is believed as far as what a
//! program prints is: it reads hostile bytes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;

use super::channel::{Channel, Received, send_message};
use super::fault::{Step, fault};
use super::nursery::sanitise;
use crate::sys;
use crate::wire::{EgressOrder, FromEgress, WallFault};

/// An egress that was given its terms.
#[derive(Debug)]
pub(crate) struct Outlet {
    channel: Channel<FromEgress>,
    pidfd: OwnedFd,
}

impl Outlet {
    pub(super) fn begin(
        pidfd: OwnedFd,
        socket: OwnedFd,
        order: &EgressOrder,
        listener: &OwnedFd,
    ) -> Result<Self, WallFault> {
        let outlet = Self { channel: Channel::new(socket), pidfd };
        outlet.channel.send(order, &[listener.as_fd()])?;
        Ok(outlet)
    }

    /// To poll for POLLIN before [`Outlet::receive`].
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.channel.socket()
    }

    /// Takes one message if there is one. Does not block.
    ///
    /// # Errors
    /// When it is gone and nothing it said is left, or what it said is no message.
    pub(crate) fn receive(&mut self) -> Result<Option<FromEgress>, WallFault> {
        match self.channel.next()? {
            Received::Message(message) => Ok(Some(message)),
            Received::Nothing => Ok(None),
            Received::Closed => Err(fault("hear the egress of a call", "it has ended")),
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        // ESRCH when it has ended.
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), Signal::SIGKILL);
    }
}

/// In an egress: the supervisor's socket, the terms, the listening socket.
pub(crate) fn take_order() -> Result<(OwnedFd, EgressOrder, OwnedFd), WallFault> {
    let socket = sanitise()?;
    nix::sys::prctl::set_name(c"oxibot-egress").step("name the egress")?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("tie the egress to the nursery")?;
    let mut orders = Channel::<EgressOrder>::new(socket);
    match orders.wait(None)? {
        Received::Message(order) => {
            let listener = orders.take_descriptor()?;
            let socket = orders.socket().try_clone_to_owned().step("keep the control socket")?;
            Ok((socket, order, listener))
        }
        Received::Nothing | Received::Closed => Err(fault("take an order", "the supervisor is gone")),
    }
}

/// In an egress: tells the supervisor. Waits where it has to, so that nothing that was decided goes untold.
pub(crate) fn tell(supervisor: BorrowedFd<'_>, message: &FromEgress) -> Result<(), WallFault> {
    send_message(supervisor, message, &[])
}
