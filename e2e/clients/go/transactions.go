package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// transactions carries out what producers with transactional ids do, each under a name of the test's own.
func (d *driver) transactions(ctx context.Context, r *request) (any, error) {
	switch r.Op {
	case "transactional":
		timeout := 60_000
		if r.TransactionTimeoutMs > 0 {
			timeout = r.TransactionTimeoutMs
		}
		client, err := kgo.NewClient(
			kgo.SeedBrokers(d.bootstrap...),
			kgo.TransactionalID(r.ID),
			kgo.TransactionTimeout(time.Duration(timeout)*time.Millisecond),
			kgo.RecordPartitioner(kgo.ManualPartitioner()),
		)
		if err != nil {
			return nil, err
		}
		d.producers[r.Producer] = client
		// The id is claimed now, not with the first transaction.
		if _, _, err := client.ProducerID(ctx); err != nil {
			return nil, err
		}
		return map[string]any{}, nil
	case "transact":
		return d.transact(ctx, r)
	default:
		return d.transform(ctx, r)
	}
}

func (d *driver) transact(ctx context.Context, r *request) (any, error) {
	client := d.producers[r.Producer]
	if client == nil {
		return nil, fmt.Errorf("no producer %q", r.Producer)
	}
	// One that was left open goes on.
	if !r.Open {
		if err := client.BeginTransaction(); err != nil {
			return nil, err
		}
	}
	for _, value := range r.Values {
		record := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Value: []byte(value)}
		if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
			_ = client.EndTransaction(ctx, kgo.TryAbort)
			return nil, err
		}
	}
	switch r.End {
	case "commit":
		return map[string]any{}, client.EndTransaction(ctx, kgo.TryCommit)
	case "abort":
		return map[string]any{}, client.EndTransaction(ctx, kgo.TryAbort)
	}
	return map[string]any{}, nil
}

// transform copies records of one topic into another, a transaction for each poll, until so many are copied.
func (d *driver) transform(ctx context.Context, r *request) (any, error) {
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(d.bootstrap...),
		kgo.TransactionalID(r.ID),
		kgo.ConsumerGroup(r.Group),
		kgo.ConsumeTopics(r.FromTopic),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RequireStableFetchOffsets(),
		kgo.SessionTimeout(6*time.Second),
		kgo.FetchMaxWait(200*time.Millisecond),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	copied := 0
	for copied < r.Count && ctx.Err() == nil {
		poll, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		fetches := session.PollRecords(poll, 7)
		cancel()
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := session.Begin(); err != nil {
			return nil, err
		}
		var failed error
		fetches.EachRecord(func(in *kgo.Record) {
			out := &kgo.Record{Topic: r.To, Partition: in.Partition, Key: in.Key, Value: in.Value}
			session.Produce(ctx, out, func(_ *kgo.Record, err error) {
				if err != nil {
					failed = err
				}
			})
		})
		if err := session.Client().Flush(ctx); err != nil {
			failed = err
		}
		committed, err := session.End(ctx, kgo.TransactionEndTry(failed == nil))
		if err != nil {
			return nil, err
		}
		if committed {
			copied += fetches.NumRecords()
		}
	}
	return map[string]any{"copied": copied}, nil
}
