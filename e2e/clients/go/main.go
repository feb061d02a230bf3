// franz-go, driven line by line: one JSON request on the standard input, one JSON reply on the standard output (e2e/src/driver.rs).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// request holds the fields of every operation; driver.rs says which one has which.
type request struct {
	Op          string            `json:"op"`
	Topic       string            `json:"topic"`
	Records     []record          `json:"records"`
	Generate    *generate         `json:"generate"`
	Acks        string            `json:"acks"`
	Compression string            `json:"compression"`
	Idempotent  bool              `json:"idempotent"`
	LingerMs    int               `json:"linger_ms"`
	TimeoutMs   int               `json:"timeout_ms"`
	Partitions  json.RawMessage   `json:"partitions"`
	Partition   int32             `json:"partition"`
	From        any               `json:"from"`
	Count       int               `json:"count"`
	Timestamp   int64             `json:"timestamp"`
	At          any               `json:"at"`
	Offset      int64             `json:"offset"`
	Replicas    *int16            `json:"replicas"`
	Configs     map[string]string `json:"configs"`
	Type        string            `json:"type"`
	Name        string            `json:"name"`
	Ops         [][]*string       `json:"ops"`
	Member      string            `json:"member"`
	Group       string            `json:"group"`
	Topics      []string          `json:"topics"`
	Instance    string            `json:"instance"`
	Protocol    string            `json:"protocol"`
	Assignor    string            `json:"assignor"`
	SessionMs   int               `json:"session_ms"`

	Producer             string   `json:"producer"`
	ID                   string   `json:"id"`
	TransactionTimeoutMs int      `json:"transaction_timeout_ms"`
	Values               []string `json:"values"`
	End                  string   `json:"end"`
	Open                 bool     `json:"open"`
	FromTopic            string   `json:"from_topic"`
	To                   string   `json:"to"`
	ReadCommitted        bool     `json:"read_committed"`
}

// record has bytes as base64 in JSON, which encoding/json does by itself; a null is nil.
type record struct {
	Partition *int32  `json:"partition"`
	Offset    int64   `json:"offset"`
	Timestamp *int64  `json:"timestamp"`
	Key       []byte  `json:"key"`
	Value     []byte  `json:"value"`
	Headers   [][]any `json:"headers"`
}

type generate struct {
	Count int `json:"count"`
	Size  int `json:"size"`
	Keys  int `json:"keys"`
}

type driver struct {
	bootstrap []string
	admin     *kadm.Client
	members   map[string]*member
	producers map[string]*kgo.Client
}

func main() {
	d := driver{bootstrap: strings.Split(os.Args[1], ","), members: map[string]*member{}, producers: map[string]*kgo.Client{}}
	client, err := kgo.NewClient(kgo.SeedBrokers(d.bootstrap...), kgo.RetryTimeout(20*time.Second))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	d.admin = kadm.NewClient(client)
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		fmt.Println(d.reply(line))
	}
}

func (d *driver) reply(line []byte) string {
	var r request
	result, err := any(nil), json.Unmarshal(line, &r)
	if err == nil {
		result, err = d.handle(&r)
	}
	reply := map[string]any{"ok": result}
	if err != nil {
		reply = map[string]any{"error": map[string]any{"code": code(err), "message": err.Error()}}
	}
	text, err := json.Marshal(reply)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// code is Kafka's code of an error, -1 where it has none.
func code(err error) int16 {
	var ke *kerr.Error
	if errors.As(err, &ke) {
		return ke.Code
	}
	return -1
}

func (d *driver) handle(r *request) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	switch r.Op {
	case "produce":
		return d.produce(ctx, r)
	case "consume":
		return d.consume(ctx, r)
	case "transactional", "transact", "transform":
		return d.transactions(ctx, r)
	case "join", "poll", "commit", "leave":
		return d.member(ctx, r)
	default:
		return d.administer(ctx, r)
	}
}

func (d *driver) produce(ctx context.Context, r *request) (any, error) {
	timeout := 20 * time.Second
	if r.TimeoutMs > 0 {
		timeout = time.Duration(r.TimeoutMs) * time.Millisecond
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(d.bootstrap...),
		kgo.AllowAutoTopicCreation(),
		kgo.ProducerLinger(time.Duration(r.LingerMs) * time.Millisecond),
		kgo.ProducerBatchMaxBytes(64 << 20),
		kgo.BrokerMaxWriteBytes(100 << 20),
		kgo.UnknownTopicRetries(20),
		kgo.MaxBufferedRecords(200_000),
		kgo.ProducerBatchCompression(map[string]kgo.CompressionCodec{
			"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
			"none": kgo.NoCompression(), "": kgo.NoCompression(),
		}[r.Compression]),
		kgo.RecordPartitioner(partitioner()),
	}
	if !r.Idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	switch r.Acks {
	case "0":
		options = append(options, kgo.RequiredAcks(kgo.NoAck()))
	case "1":
		options = append(options, kgo.RequiredAcks(kgo.LeaderAck()))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	// RecordDeliveryTimeout would count from a record's own timestamp, which a test may set to years ago.
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if r.Idempotent {
		if err := identified(ctx, client); err != nil {
			return nil, err
		}
	}
	records := recordsOf(r)
	offsets := make([][2]int64, len(records))
	for _, done := range client.ProduceSync(ctx, records...) {
		if done.Err != nil {
			return nil, done.Err
		}
	}
	for i, done := range records {
		offsets[i] = [2]int64{int64(done.Partition), done.Offset}
	}
	return map[string]any{"offsets": offsets}, nil
}

// identified waits for the producer's id. franz-go retries everything of a producer but this: when the broker dies on a new
// connection's first request, it takes that for a missing SASL and fails the records.
func identified(ctx context.Context, client *kgo.Client) error {
	for {
		_, _, err := client.ProducerID(ctx)
		var ended *kgo.ErrFirstReadEOF
		if !errors.As(err, &ended) || ctx.Err() != nil {
			return err
		}
	}
}

// partitioner keeps a partition that the request names and hashes keys as the Java client does.
func partitioner() kgo.Partitioner {
	keyed := kgo.StickyKeyPartitioner(nil)
	return kgo.BasicConsistentPartitioner(func(topic string) func(*kgo.Record, int) int {
		of := keyed.ForTopic(topic)
		return func(r *kgo.Record, n int) int {
			if r.Context.Value(named{}) != nil {
				return int(r.Partition)
			}
			return of.Partition(r, n)
		}
	})
}

// named marks a record whose partition the request chose.
type named struct{}

func recordsOf(r *request) []*kgo.Record {
	var records []*kgo.Record
	for _, one := range r.Records {
		out := &kgo.Record{Topic: r.Topic, Key: one.Key, Value: one.Value, Context: context.Background()}
		if one.Partition != nil {
			out.Partition = *one.Partition
			out.Context = context.WithValue(out.Context, named{}, true)
		}
		if one.Timestamp != nil {
			out.Timestamp = time.UnixMilli(*one.Timestamp)
		}
		for _, h := range one.Headers {
			out.Headers = append(out.Headers, header(h))
		}
		records = append(records, out)
	}
	if g := r.Generate; g != nil {
		for i := range g.Count {
			value := fmt.Sprintf("%010d", i)
			value += strings.Repeat("x", g.Size-len(value))
			records = append(records, kgo.KeyStringRecord(fmt.Sprintf("k%d", i%g.Keys), value))
			last := records[len(records)-1]
			last.Topic, last.Context = r.Topic, context.Background()
		}
	}
	return records
}

func (d *driver) consume(ctx context.Context, r *request) (any, error) {
	var partitions []int32
	if err := json.Unmarshal(r.Partitions, &partitions); err != nil {
		return nil, err
	}
	offset := kgo.NewOffset().AtStart()
	switch from := r.From.(type) {
	case float64:
		offset = kgo.NewOffset().At(int64(from))
	case string:
		if from == "end" {
			offset = kgo.NewOffset().AtEnd()
		}
	}
	assigned := map[int32]kgo.Offset{}
	for _, p := range partitions {
		assigned[p] = offset
	}
	isolation := kgo.ReadUncommitted()
	if r.ReadCommitted {
		isolation = kgo.ReadCommitted()
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(d.bootstrap...),
		kgo.FetchIsolationLevel(isolation),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.Topic: assigned}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxWait(200*time.Millisecond),
	)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	timeout := 20 * time.Second
	if r.TimeoutMs > 0 {
		timeout = time.Duration(r.TimeoutMs) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	records := []record{}
	for len(records) < r.Count && ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) {
				return nil, e.Err
			}
		}
		fetches.EachRecord(func(k *kgo.Record) { records = append(records, consumed(k)) })
	}
	return records, nil
}
