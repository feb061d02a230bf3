package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// member is a consumer in a group, and what it is assigned.
type member struct {
	client   *kgo.Client
	mutex    sync.Mutex
	assigned map[string]map[int32]bool
}

// member carries out what members of groups do, each under a name of the test's own.
func (d *driver) member(ctx context.Context, r *request) (any, error) {
	if r.Op == "join" {
		m, err := d.join(r)
		if err != nil {
			return nil, err
		}
		d.members[r.Member] = m
		return map[string]any{}, nil
	}
	m := d.members[r.Member]
	if m == nil {
		return nil, fmt.Errorf("no member %q", r.Member)
	}
	switch r.Op {
	case "poll":
		return m.poll(ctx, r)
	case "commit":
		return map[string]any{}, m.client.CommitUncommittedOffsets(ctx)
	default:
		m.client.Close()
		delete(d.members, r.Member)
		return map[string]any{}, nil
	}
}

func (d *driver) join(r *request) (*member, error) {
	m := &member{assigned: map[string]map[int32]bool{}}
	session := 6000
	if r.SessionMs > 0 {
		session = r.SessionMs
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(d.bootstrap...),
		kgo.ConsumerGroup(r.Group),
		kgo.ConsumeTopics(r.Topics...),
		kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(time.Duration(session) * time.Millisecond),
		kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.FetchMaxWait(200 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) { m.change(got, true) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { m.change(lost, false) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { m.change(lost, false) }),
	}
	if r.Instance != "" {
		options = append(options, kgo.InstanceID(r.Instance))
	}
	if r.Assignor == "range" {
		options = append(options, kgo.Balancers(kgo.RangeBalancer()))
	}
	client, err := kgo.NewClient(options...)
	m.client = client
	return m, err
}

func (m *member) change(partitions map[string][]int32, assigned bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for topic, indexes := range partitions {
		for _, index := range indexes {
			if assigned {
				if m.assigned[topic] == nil {
					m.assigned[topic] = map[int32]bool{}
				}
				m.assigned[topic][index] = true
			} else {
				delete(m.assigned[topic], index)
			}
		}
	}
}

func (m *member) poll(ctx context.Context, r *request) (any, error) {
	timeout := 200
	if r.TimeoutMs > 0 {
		timeout = r.TimeoutMs
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(timeout)*time.Millisecond)
	defer cancel()
	records := []record{}
	for ctx.Err() == nil && (len(records) < r.Count || r.Count == 0) {
		fetches := m.client.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) {
				return nil, e.Err
			}
		}
		fetches.EachRecord(func(k *kgo.Record) { records = append(records, consumed(k)) })
		if r.Count == 0 {
			break
		}
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	assigned := [][]any{}
	for topic, indexes := range m.assigned {
		for index := range indexes {
			assigned = append(assigned, []any{topic, index})
		}
	}
	return map[string]any{"records": records, "assigned": assigned}, nil
}
