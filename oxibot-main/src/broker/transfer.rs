//! Files of the workspace in and out, in chunks, through the files worker. Main itself opens none of them.

use std::sync::Arc;

use oxibot_proto::message::{
    CHUNK_WINDOW, CallNumber, Denial, FileChunk, GetRequest, MAX_CHUNK, MAX_TRANSFER, Outcome, PutRequest,
    ToToolhost, TransferEnd,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::connection::{Link, Order};
use super::{Broker, BrokerError};
use crate::render::neutral;

/// Cancels the transfer when its caller goes away before the end.
struct Guard(Link);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.look_for_abandoned();
    }
}

impl Broker {
    /// A whole file of the workspace, at most `max` bytes.
    ///
    /// # Errors
    /// [`BrokerError::Transfer`] when there is no such file, it is larger, or it may not be read; else as
    /// [`Broker::tools`].
    pub async fn get_file(
        &self,
        workspace: Option<String>,
        path: &str,
        max: u64,
    ) -> Result<Vec<u8>, BrokerError> {
        let max = max.min(MAX_TRANSFER);
        let call = self.number();
        let link = self.link();
        let (chunks, mut received) = mpsc::channel::<FileChunk>(CHUNK_WINDOW + 1);
        let (end, mut ended) = oneshot::channel();
        let request = GetRequest { call, workspace, path: path.to_owned(), max_size: max };
        link.order(Order::Get(request, chunks, end)).await?;
        let _guard = Guard(link.clone());

        let mut data: Vec<u8> = Vec::new();
        while let Some(chunk) = received.recv().await {
            let held = size(data.len());
            if chunk.offset != held || held.saturating_add(size(chunk.data.len())) > max {
                return Err(refused(path, "the toolhost sent other bytes than it was asked for"));
            }
            data.extend_from_slice(&chunk.data);
            link.order(Order::Taken(call)).await?;
        }
        let ended = ended.try_recv().map_err(|_| link.why())?;
        finish(path, &ended)?;
        if ended.size != size(data.len()) {
            return Err(refused(path, "the file came incomplete"));
        }
        Ok(data)
    }

    /// Writes a whole file of the workspace, under a temporary name until it is complete.
    ///
    /// # Errors
    /// As [`Broker::get_file`].
    pub async fn put_file(
        &self,
        workspace: Option<String>,
        path: &str,
        data: &[u8],
    ) -> Result<(), BrokerError> {
        if size(data.len()) > MAX_TRANSFER {
            return Err(refused(path, "it is larger than what may cross to the workspace"));
        }
        let call = self.number();
        let link = self.link();
        let credit = Arc::new(Semaphore::new(CHUNK_WINDOW));
        let (end, mut ended) = oneshot::channel();
        let request = PutRequest { call, workspace, path: path.to_owned(), size: size(data.len()) };
        link.order(Order::Put(request, Arc::clone(&credit), end)).await?;
        let _guard = Guard(link.clone());

        self.put_chunks(&link, call, &credit, data).await?;
        let ended = (&mut ended).await.map_err(|_| link.why())?;
        finish(path, &ended)
    }

    async fn put_chunks(
        &self,
        link: &Link,
        call: CallNumber,
        credit: &Semaphore,
        data: &[u8],
    ) -> Result<(), BrokerError> {
        let mut offset = 0_u64;
        for piece in data.chunks(MAX_CHUNK) {
            if !take(credit).await {
                return Ok(());
            }
            let chunk = FileChunk { call, offset, data: piece.to_vec() };
            offset = offset.saturating_add(size(piece.len()));
            link.order(Order::Send(ToToolhost::PutChunk(chunk))).await?;
        }
        Ok(())
    }
}

/// Waits for a permit; `false` when the transfer is over.
async fn take(credit: &Semaphore) -> bool {
    match credit.acquire().await {
        Ok(permit) => {
            permit.forget();
            true
        }
        Err(_closed) => false,
    }
}

fn finish(path: &str, ended: &TransferEnd) -> Result<(), BrokerError> {
    match &ended.outcome {
        Outcome::Completed => Ok(()),
        Outcome::Denied(Denial { reason, hint, .. })
        | Outcome::NeedsApproval(Denial { reason, hint, .. }) => {
            Err(refused(path, &format!("{reason}; {hint}")))
        }
        Outcome::Failed { message } | Outcome::Internal { message } => Err(refused(path, message)),
        Outcome::TimedOut => Err(refused(path, "it took too long")),
        Outcome::Cancelled => Err(refused(path, "it was cancelled")),
        Outcome::Killed { .. } => Err(refused(path, "the files worker was killed")),
    }
}

fn refused(path: &str, cause: &str) -> BrokerError {
    BrokerError::Transfer { path: neutral::line(path, 256), cause: neutral::line(cause, 1024) }
}

fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
