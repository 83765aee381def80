//! The shard's mailbox and the task that drains its inbox, both on the shard's arbiter.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, MessageResult};
use quiver_model::SenderId;
use quiver_protocol::ConnectionClose;

use super::{Ledger, Shard, ShardOutlet};
use crate::ingest::{Identified, run_session};

/// Messages that may wait: connections that have just been identified, and questions.
const MAILBOX_LENGTH: usize = 4_096;
/// Events applied before other tasks of the arbiter get a turn.
const EVENTS_PER_TURN: usize = 256;

/// Takes over a connection that has been identified.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AdoptConnection(pub Box<Identified>);

/// Closes all connections of a sender.
#[derive(Message)]
#[rtype(result = "usize")]
pub struct CloseSender {
    /// Whose; `None` for all.
    pub sender: Option<SenderId>,
    /// Why.
    pub close: ConnectionClose,
    /// When it may come back, in milliseconds.
    pub reconnect_after_ms: u32,
}

/// Asks for the ledgers.
#[derive(Message)]
#[rtype(result = "BTreeMap<SenderId, Ledger>")]
pub struct AuditShard;

/// Ends the shard.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopShard;

/// The actor of a shard.
pub struct ShardActor {
    shard: Rc<RefCell<Shard>>,
    outlet: Option<ShardOutlet>,
}

impl ShardActor {
    /// An actor for this shard. Make it on the arbiter where it is to live.
    pub fn new(shard: Shard, outlet: ShardOutlet) -> Self {
        Self {
            shard: Rc::new(RefCell::new(shard)),
            outlet: Some(outlet),
        }
    }
}

/// Applies events as they come. Never waits but for the next event.
async fn drain(shard: Rc<RefCell<Shard>>, outlet: ShardOutlet) {
    loop {
        let mut applied = 0;
        while let Ok(event) = outlet.events.try_recv() {
            shard.borrow_mut().apply(event);
            applied += 1;
            if applied == EVENTS_PER_TURN {
                tokio::task::yield_now().await;
                applied = 0;
            }
        }
        outlet.wake.notified().await;
    }
}

impl Actor for ShardActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX_LENGTH);
        if let Some(outlet) = self.outlet.take() {
            let task = actix::fut::wrap_future::<_, Self>(drain(self.shard.clone(), outlet));
            context.spawn(task);
        }
    }
}

impl Handler<AdoptConnection> for ShardActor {
    type Result = ();

    fn handle(&mut self, message: AdoptConnection, _: &mut Self::Context) {
        actix_rt::spawn(run_session(self.shard.clone(), *message.0));
    }
}

impl Handler<CloseSender> for ShardActor {
    type Result = usize;

    fn handle(&mut self, message: CloseSender, _: &mut Self::Context) -> usize {
        let shard = self.shard.borrow();
        let affected = shard.connected(message.sender.as_ref());
        let mut closed = 0;
        for session in affected
            .iter()
            .flat_map(|(_, state)| state.sessions.values())
        {
            session
                .outbox
                .close(message.close.clone(), message.reconnect_after_ms);
            closed += 1;
        }
        closed
    }
}

impl Handler<AuditShard> for ShardActor {
    type Result = MessageResult<AuditShard>;

    fn handle(&mut self, _: AuditShard, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.shard.borrow().ledgers())
    }
}

impl Handler<StopShard> for ShardActor {
    type Result = ();

    fn handle(&mut self, _: StopShard, context: &mut Self::Context) {
        context.stop();
    }
}
