// Command orders produces orders, and consumes them in a group.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	// Ctrl-C ends a poll, so that the group hears at once that this member is gone.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	usage := errors.New("usage: orders produce BOOTSTRAP TOPIC COUNT | consume BOOTSTRAP TOPIC GROUP COUNT")
	if len(args) == 0 {
		return usage
	}
	count, err := strconv.Atoi(args[len(args)-1])
	switch {
	case err != nil:
		return usage
	case args[0] == "produce" && len(args) == 4:
		return produce(ctx, args[1], args[2], count)
	case args[0] == "consume" && len(args) == 5:
		return consume(ctx, args[1], args[2], args[3], count)
	default:
		return usage
	}
}

func produce(ctx context.Context, bootstrap, topic string, count int) error {
	// acks=all and idempotence are the client's defaults: a record counts once all in-sync replicas have it, and a retry writes nothing twice.
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...),
		kgo.AllowAutoTopicCreation(),
		// For so long a record is tried again, for instance while leaders move.
		kgo.RecordDeliveryTimeout(30*time.Second),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	records := make([]*kgo.Record, count)
	for order := range records {
		records[order] = &kgo.Record{
			Topic: topic,
			// One customer's orders have one key, so they are in one partition, in order.
			Key:     fmt.Appendf(nil, "customer-%d", order%5),
			Value:   fmt.Appendf(nil, `{"order":%d}`, order),
			Headers: []kgo.RecordHeader{{Key: "source", Value: []byte("go")}},
		}
	}
	var failures []error
	for _, result := range client.ProduceSync(ctx, records...) {
		if result.Err != nil {
			failures = append(failures, result.Err)
		}
	}
	if len(failures) > 0 {
		return fmt.Errorf("%d of %d orders are not written, the first because of: %w", len(failures), count, failures[0])
	}
	return nil
}

func consume(ctx context.Context, bootstrap, topic, group string, count int) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		// No rebalance between a poll and its commit: what is committed here is still this member's.
		kgo.BlockRebalanceOnPoll(),
	)
	if err != nil {
		return err
	}
	// The group hears at once that this member is gone.
	defer client.CloseAllowingRebalance()
	for count > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		// What can be tried again the client tries again by itself.
		fetches.EachError(func(topic string, partition int32, err error) {
			fmt.Fprintf(os.Stderr, "%s, partition %d: %v\n", topic, partition, err)
		})
		fetches.EachRecord(func(record *kgo.Record) {
			var source []byte
			for _, header := range record.Headers {
				if header.Key == "source" {
					source = header.Value
				}
			}
			fmt.Printf("%s %s %s\n", record.Key, record.Value, source)
			count--
		})
		// Committed once they are handled: after a crash some orders come again, and none is left out.
		if err := client.CommitUncommittedOffsets(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "not committed, whoever has the partitions now gets the orders again: %v\n", err)
		}
		client.AllowRebalance()
	}
	return nil
}
