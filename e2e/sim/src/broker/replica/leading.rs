//! A leader: it serves followers, producers and consumers, and proposes ISRs to the controller.

use weir_broker::replica::core::leader::{Fetched as FollowerAt, Outcome};
use weir_broker::replica::core::{FetchAnswer, FetchFrom, Leadership, PartitionState, Proposal};
use weir_operator::controller::state::Partition;
use weir_operator::controller::{AlterPartitions, IsrChange};
use weir_protocol::error::ErrorCode;
use weir_protocol::types::{BrokerEpoch, PartitionEpoch};

use super::{Around, Parked, Replica, Role, record_of, state_of};
use crate::ctx::BrokerAlarm;
use crate::message::{Body, Fetch, Fetched, Node, Produce, Read, ReadAnswer};
use crate::mutation::Mutation;

/// The most records in an answer.
const RECORDS_MAX: usize = 4;

/// The timeout of a call to the controller.
const CALL_MS_MAX: u64 = 400;

impl Replica {
    /// Carries out the outcome of an event, and answers waiting producers.
    pub(super) fn led(&mut self, outcome: Outcome, around: &mut Around<'_, '_>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        self.high_watermark = leadership.high_watermark();
        let (epoch, committed) = (leadership.epoch().0, leadership.committed());
        let may_advance = committed.isr.len() >= self.min_isr.min(committed.replicas.len());
        around.ctx.checks.high_watermark(
            around.partition,
            around.topic,
            epoch,
            self.high_watermark,
            may_advance,
            around.log,
        );
        if let Some(proposal) = outcome.proposal {
            self.propose(proposal, around);
        }
        self.answer_producers(around);
        self.plan_check(around);
    }

    fn plan_check(&mut self, around: &mut Around<'_, '_>) {
        let Role::Leader(leadership) = &self.role else { return };
        let Some(at) = leadership.next_check_ms(around.log.end(), around.ctx.now) else {
            return;
        };
        let at = at.max(around.ctx.now + 1);
        if self.checks_at.is_none_or(|planned| planned > at || planned <= around.ctx.now) {
            self.checks_at = Some(at);
            around.alarm(at - around.ctx.now, BrokerAlarm::Check(around.partition));
        }
    }

    /// Lets the leadership check its timeouts.
    pub(in crate::broker) fn check(&mut self, around: &mut Around<'_, '_>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        if let Some(own) = around.registered(around.own()) {
            leadership.registered(own.epoch);
        }
        let outcome = leadership.check(around.ends(), &|id| around.peer(id), around.ctx.now);
        self.led(outcome, around);
    }

    /// The leader's log has grown or was flushed.
    pub(super) fn grew(&mut self, around: &mut Around<'_, '_>) {
        let Role::Leader(leadership) = &mut self.role else { return };
        let advanced = leadership.grew(around.ends(), &|id| around.peer(id), around.ctx.now);
        self.led(Outcome { advanced, proposal: None }, around);
    }

    fn propose(&mut self, mut proposal: Proposal, around: &mut Around<'_, '_>) {
        let plan = around.ctx.plan;
        let Role::Leader(leadership) = &mut self.role else { return };
        let grows = proposal.isr.len() > proposal.base.isr.len();
        if plan.has(Mutation::NeverExpands) && grows {
            return;
        }
        if plan.has(Mutation::BelievesOldFetches) {
            for (id, epoch) in &mut proposal.isr {
                *epoch = around.registered(*id).map_or(*epoch, |peer| peer.epoch);
            }
        }
        let mut pretended = None;
        if plan.has(Mutation::ForgetsProposals) && grows {
            let refused = Err(ErrorCode::OperationNotAttempted);
            pretended = Some(leadership.answered(
                &proposal,
                refused,
                around.ends(),
                &|id| around.peer(id),
                around.ctx.now,
            ));
        }
        if plan.has(Mutation::RemovesAtOnce) && proposal.isr.len() < proposal.base.isr.len() {
            let removed = PartitionState {
                isr: proposal.isr.iter().map(|(id, _)| *id).collect(),
                partition_epoch: PartitionEpoch(proposal.base.partition_epoch.0 + 1),
                ..proposal.base.clone()
            };
            pretended = Some(leadership.updated(
                removed,
                around.ends(),
                &|id| around.peer(id),
                around.ctx.now,
            ));
        }
        self.call_controller(proposal, around);
        if let Some(outcome) = pretended {
            self.led(Outcome { proposal: None, ..outcome }, around);
        }
    }

    fn call_controller(&mut self, proposal: Proposal, around: &mut Around<'_, '_>) {
        self.calls += 1;
        let call = (around.run << 32) | (self.calls << 8) | around.partition as u64;
        let change = IsrChange {
            topic: around.topic,
            partition: 0,
            leader_epoch: proposal.base.leader_epoch,
            partition_epoch: proposal.base.partition_epoch,
            isr: proposal.isr.clone(),
            recovered: proposal.recovered,
        };
        let request =
            AlterPartitions { broker: around.own(), epoch: around.epoch, changes: vec![change] };
        around.ctx.trace(|| {
            format!(
                "broker {} asks operator {:?} for {}: {:?}",
                around.id, around.operator, around.partition, proposal.isr
            )
        });
        self.call = Some((call, proposal));
        if let Some(operator) = around.operator {
            around.send(Node::Operator(operator), Body::Alter(call, request));
        }
        around.alarm(CALL_MS_MAX, BrokerAlarm::CallTimeout(around.partition, call));
    }

    /// Handles the answer to a call, or its timeout.
    pub(in crate::broker) fn answered(
        &mut self,
        call: u64,
        result: Result<Partition, ErrorCode>,
        around: &mut Around<'_, '_>,
    ) {
        let Role::Leader(leadership) = &mut self.role else { return };
        let Some((_, proposal)) = self.call.take_if(|(awaited, _)| *awaited == call) else {
            return;
        };
        around.ctx.trace(|| {
            format!(
                "broker {} is answered for {}: {:?}",
                around.id,
                around.partition,
                result.as_ref().map(|state| &state.isr)
            )
        });
        let state = result.map(|partition| state_of(&partition, around.ctx.plan));
        let peers = |id| around.peer(id);
        let outcome =
            leadership.answered(&proposal, state.clone(), around.ends(), &peers, around.ctx.now);
        self.led(outcome, around);
        // Only a mutation that hides its proposal gets an answer that the core does not expect.
        if let (Ok(state), Some(_)) = (state, around.ctx.plan.mutation)
            && let Role::Leader(leadership) = &mut self.role
        {
            let outcome =
                leadership.updated(state, around.ends(), &|id| around.peer(id), around.ctx.now);
            self.led(outcome, around);
        }
    }

    /// Serves a follower's fetch.
    pub(in crate::broker) fn serve(
        &mut self,
        from: Node,
        fetch: Fetch,
        around: &mut Around<'_, '_>,
    ) {
        let (run, partition) = (fetch.run, fetch.partition);
        let answer = |answer, records| {
            let to = fetch.from;
            Body::Fetched(Box::new(Fetched {
                topic: fetch.topic,
                run,
                partition,
                to,
                answer,
                records,
            }))
        };
        let refusal = |error| FetchAnswer {
            error,
            high_watermark: -1,
            log_start: -1,
            diverging: None,
            has_records: false,
        };
        match self.examine(from, fetch, around) {
            Err(error) => around.send(from, answer(refusal(error), Vec::new())),
            Ok((served, outcome)) => {
                let records = if served.has_records {
                    around.log.read(fetch.from.offset, around.log.end(), RECORDS_MAX)
                } else {
                    Vec::new()
                };
                if let Some(outcome) = outcome {
                    self.led(outcome, around);
                }
                around.send(from, answer(served, records));
            }
        }
    }

    fn examine(
        &mut self,
        from: Node,
        fetch: Fetch,
        around: &mut Around<'_, '_>,
    ) -> Result<(FetchAnswer, Option<Outcome>), ErrorCode> {
        let Node::Broker(id) = from else { return Err(ErrorCode::InvalidRequest) };
        let follower = weir_protocol::types::BrokerId(id as i32);
        let Role::Leader(leadership) = &mut self.role else {
            return Err(match fetch.from.current_leader_epoch.cmp(&self.known.0) {
                std::cmp::Ordering::Less => ErrorCode::FencedLeaderEpoch,
                std::cmp::Ordering::Greater => ErrorCode::UnknownLeaderEpoch,
                std::cmp::Ordering::Equal => ErrorCode::NotLeaderOrFollower,
            });
        };
        let plan = around.ctx.plan;
        let mut asked = fetch.from;
        if plan.has(Mutation::LooksAtNoEpoch) {
            asked.current_leader_epoch = leadership.epoch();
            asked.last_fetched_epoch = None;
        }
        let had = around.had();
        let diverging = around.log.look(had, |log| leadership.examine(follower, &asked, log))?;
        let mut answer = FetchAnswer {
            error: ErrorCode::None,
            high_watermark: leadership.high_watermark(),
            log_start: around.log.start(),
            diverging,
            has_records: diverging.is_none() && asked.offset < around.log.end(),
        };
        if diverging.is_some() {
            return Ok((answer, None));
        }
        let outcome = follow_up(leadership, follower, &fetch, asked, around)?;
        answer.high_watermark = leadership.high_watermark();
        Ok((answer, Some(outcome)))
    }

    /// Handles a producer's record.
    pub(in crate::broker) fn produce(
        &mut self,
        client: Node,
        produce: Produce,
        around: &mut Around<'_, '_>,
    ) {
        let request = produce.request;
        match self.append(&produce, around) {
            Err(error) => around.send(client, Body::Produced(request, self.known.0, Err(error))),
            Ok(offset) => {
                if produce.acks_all && around.ctx.plan.has(Mutation::AcknowledgesEarly) {
                    self.acknowledge(client, request, offset, around);
                    return;
                }
                self.parked.push(Parked { client, request, offset, acks_all: produce.acks_all });
                self.request_flush(around);
                self.grew(around);
            }
        }
    }

    fn append(&mut self, produce: &Produce, around: &mut Around<'_, '_>) -> Result<i64, ErrorCode> {
        let Role::Leader(leadership) = &self.role else {
            return Err(ErrorCode::NotLeaderOrFollower);
        };
        leadership.accepts(produce.acks_all)?;
        let record = record_of(leadership.epoch(), produce);
        if record.sequence >= 0 && !around.ctx.plan.has(Mutation::IgnoresSequences) {
            // When the log has no record of the producer any more, it accepts any sequence
            // (`ProducerAppendInfo.checkSequence`).
            let nothing = if around.log.start() > 0 { record.sequence - 1 } else { -1 };
            let last = around.log.last_of(record.producer).unwrap_or(nothing);
            if record.sequence <= last {
                return around
                    .log
                    .find(record.producer, record.sequence)
                    .ok_or(ErrorCode::DuplicateSequenceNumber);
            }
            if record.sequence > last + 1 {
                return Err(ErrorCode::OutOfOrderSequenceNumber);
            }
        }
        Ok(around.log.append(record))
    }

    fn acknowledge(
        &mut self,
        client: Node,
        request: u64,
        offset: i64,
        around: &mut Around<'_, '_>,
    ) {
        let Role::Leader(leadership) = &self.role else { return };
        if let Some(record) = around.log.get(offset) {
            around.ctx.checks.acknowledged(
                around.partition,
                around.topic,
                leadership.epoch().0,
                (offset, record),
                self.deposed_at.filter(|_| !around.is_told),
            );
            around.ctx.checks.counts.resumed_acknowledged += u64::from(!around.is_told);
        }
        around.send(client, Body::Produced(request, self.known.0, Ok(offset)));
    }

    fn answer_producers(&mut self, around: &mut Around<'_, '_>) {
        let Role::Leader(leadership) = &self.role else { return };
        let had = around.had();
        let due = |parked: &Parked| match parked.acks_all {
            false => (had > parked.offset).then_some(Ok(())),
            true => match leadership.acknowledges(parked.offset + 1) {
                Ok(false) => None,
                Ok(true) => Some(Ok(())),
                Err(error) => Some(Err(error)),
            },
        };
        let answers: Vec<_> =
            self.parked.iter().filter_map(|parked| Some((*parked, due(parked)?))).collect();
        self.parked.retain(|parked| due(parked).is_none());
        for (parked, answer) in answers {
            match answer {
                Ok(()) if parked.acks_all => {
                    self.acknowledge(parked.client, parked.request, parked.offset, around)
                }
                Ok(()) => around.send(
                    parked.client,
                    Body::Produced(parked.request, self.known.0, Ok(parked.offset)),
                ),
                Err(error) => around
                    .send(parked.client, Body::Produced(parked.request, self.known.0, Err(error))),
            }
        }
    }

    /// Serves a consumer's read.
    pub(in crate::broker) fn read(
        &mut self,
        client: Node,
        read: Read,
        around: &mut Around<'_, '_>,
    ) {
        let Role::Leader(leadership) = &self.role else {
            let answer = ReadAnswer {
                request: read.request,
                epoch: self.known.0,
                log_start: -1,
                records: Vec::new(),
                latest: Err(ErrorCode::NotLeaderOrFollower),
                epoch_end: None,
                last_epoch_end: None,
                error: ErrorCode::NotLeaderOrFollower,
            };
            return around.send(client, Body::ReadAnswer(Box::new(answer)));
        };
        let plan = around.ctx.plan;
        let epoch = leadership.epoch();
        let to = if plan.has(Mutation::ReadsUncommitted) {
            around.log.end()
        } else {
            leadership.high_watermark()
        };
        let latest = if plan.has(Mutation::LatestGoesBack) {
            Ok(leadership.high_watermark())
        } else {
            leadership.latest_offset()
        };
        let error = if read.epoch > epoch {
            ErrorCode::UnknownLeaderEpoch
        } else if !(around.log.start()..=around.log.end()).contains(&read.offset) {
            ErrorCode::OffsetOutOfRange
        } else {
            ErrorCode::None
        };
        let records = if error.is_error() {
            Vec::new()
        } else {
            around.log.read(read.offset, to, RECORDS_MAX)
        };
        let answer = ReadAnswer {
            request: read.request,
            epoch,
            log_start: around.log.start(),
            records,
            latest,
            epoch_end: around.log.end_of(read.epoch),
            last_epoch_end: read.last_epoch.and_then(|epoch| around.log.end_of(epoch)),
            error,
        };
        around.send(client, Body::ReadAnswer(Box::new(answer)));
    }
}

fn follow_up(
    leadership: &mut Leadership,
    follower: weir_protocol::types::BrokerId,
    fetch: &Fetch,
    asked: FetchFrom,
    around: &mut Around<'_, '_>,
) -> Result<Outcome, ErrorCode> {
    let plan = around.ctx.plan;
    let peers = |id| around.peer(id);
    let offset =
        if plan.has(Mutation::CountsWhatNobodyHas) { around.log.end() } else { asked.offset };
    let mut broker_epoch = fetch.broker_epoch;
    if plan.has(Mutation::BelievesOldFetches) {
        broker_epoch = BrokerEpoch(0);
    }
    let at = FollowerAt { replica: follower, broker_epoch, offset, log_start: asked.log_start };
    let mut outcome = leadership.fetched(at, around.ends(), &peers, around.ctx.now)?;
    let committed = leadership.committed();
    if plan.has(Mutation::LetsAnyoneJoin)
        && outcome.proposal.is_none()
        && !committed.isr.contains(&follower)
        && !committed.recovering
    {
        let mut isr: Vec<_> = committed
            .isr
            .iter()
            .map(|id| (*id, around.registered(*id).map_or(around.epoch, |peer| peer.epoch)))
            .collect();
        isr.push((follower, fetch.broker_epoch));
        outcome.proposal = Some(Proposal { base: committed.clone(), isr, recovered: false });
    }
    Ok(outcome)
}
