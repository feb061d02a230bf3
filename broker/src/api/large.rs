//! The thread for requests that take long: large requests, and requests with large answers.
//!
//! The thread of a connection runs its requests one after the other. A name costs some
//! microseconds, and a request may hold a million. A request on this thread waits for others of its
//! kind, but holds up no connection's thread.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::reply::Reply;

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub struct LargeRequests {
    scheduler: Handle,
    /// Dropping this ends the thread.
    _running: oneshot::Sender<()>,
}

impl LargeRequests {
    /// Starts the thread.
    ///
    /// # Errors
    /// The I/O error when the thread or its runtime cannot be started.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let scheduler = runtime.handle().clone();
        let (running, ends) = oneshot::channel::<()>();
        std::thread::Builder::new().name("large-requests".to_owned()).spawn(move || {
            // Returns when the sender is dropped; it never sends.
            let _ = runtime.block_on(ends);
        })?;
        Ok(Self { scheduler, _running: running })
    }

    /// Runs a request to its end on the thread, even if the future of the reply is dropped.
    pub(crate) fn carry_out_to_the_end(
        &self,
        request: impl Future<Output = Reply> + Send + 'static,
    ) -> BoxFuture<'static, Reply> {
        let (tell, told) = oneshot::channel();
        let request = timed(request, Instant::now());
        drop(self.scheduler.spawn(async move { tell.send(request.await) }));
        // A panic in the request closes the connection, as it would on the connection's own thread.
        told.map(|reply| reply.unwrap_or_else(|_| Reply::close())).boxed()
    }

    /// Runs a request on the thread. Dropping the future of the reply ends the request.
    pub(crate) fn carry_out(
        &self,
        request: impl Future<Output = Reply> + Send + 'static,
    ) -> BoxFuture<'static, Reply> {
        let (carried_out, reply) = timed(request, Instant::now()).remote_handle();
        drop(self.scheduler.spawn(carried_out));
        reply.boxed()
    }
}

/// Carries out a request that was handed over when `asked`, and says in its times when that began
/// and how much work it was.
async fn timed(request: impl Future<Output = Reply>, asked: Instant) -> Reply {
    let mut request = pin!(request);
    let (mut began, mut busy) = (None, Duration::ZERO);
    let mut reply = std::future::poll_fn(|cx| {
        let begin = Instant::now();
        began.get_or_insert(begin);
        let polled = request.as_mut().poll(cx);
        busy += begin.elapsed();
        polled
    })
    .await;
    if let (Some(timing), Some(began)) = (&mut reply.timing, began) {
        timing.handled_aside(asked, began, busy);
    }
    reply
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use weir_protocol::api::ApiKey;

    use super::*;
    use crate::metrics::{RequestName, Timing};

    #[tokio::test]
    async fn a_request_is_carried_out_on_a_thread_of_its_own() {
        let large = LargeRequests::start().unwrap();
        let name = Arc::new(Mutex::new(String::new()));
        let noted = Arc::clone(&name);
        let request = async move {
            *noted.lock().unwrap() = std::thread::current().name().unwrap_or_default().to_owned();
            Reply::bytes(Bytes::new())
        };
        large.carry_out(request).await;
        assert_eq!(*name.lock().unwrap(), "large-requests");
    }

    /// Records that need no acknowledgement are appended even if their client is gone.
    #[tokio::test]
    async fn what_is_to_be_done_is_done_though_nobody_waits() {
        let large = LargeRequests::start().unwrap();
        let ((go, went), (tell, told)) = (oneshot::channel::<()>(), oneshot::channel());
        drop(large.carry_out_to_the_end(async move {
            went.await.unwrap();
            tell.send(()).unwrap();
            Reply::bytes(Bytes::new())
        }));
        go.send(()).unwrap();
        told.await.unwrap();
        let bug = std::future::ready(()).map(|()| -> Reply { panic!("a bug") });
        assert!(large.carry_out_to_the_end(bug).await.close);
    }

    /// The handling of a request on this thread is no wait for others.
    #[tokio::test]
    async fn a_request_says_how_long_it_waited_and_worked() {
        let large = LargeRequests::start().unwrap();
        let started = Instant::now();
        let request = async move {
            std::thread::sleep(Duration::from_millis(20));
            let name = RequestName::of(ApiKey::ListGroups);
            let timing = Some(Timing::answered(name, Duration::ZERO, started));
            Reply { timing, ..Reply::default() }
        };
        let timing = large.carry_out(request).await.timing.unwrap();
        let [_, work, _] = timing.phases();
        assert!(work >= Duration::from_millis(20), "{timing:?}");
    }

    /// A request of a disconnected client ends, for instance the wait for a group's rebalance.
    #[tokio::test]
    async fn who_stops_waiting_ends_the_request() {
        let large = LargeRequests::start().unwrap();
        let (held, dropped) = oneshot::channel::<()>();
        let request = async move {
            let _held = held;
            std::future::pending::<Reply>().await
        };
        let mut reply = large.carry_out(request);
        assert!((&mut reply).now_or_never().is_none());
        drop(reply);
        assert!(dropped.await.is_err());
    }
}
