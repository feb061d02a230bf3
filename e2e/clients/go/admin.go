package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
)

type object = map[string]any

// administer runs one operation of the admin client.
func (d *driver) administer(ctx context.Context, r *request) (any, error) {
	switch r.Op {
	case "create_topic":
		return object{}, d.createTopic(ctx, r)
	case "delete_topic":
		_, err := d.admin.DeleteTopic(ctx, r.Topic)
		return object{}, err
	case "list_topics":
		topics, err := d.admin.ListTopics(ctx)
		return topics.Names(), err
	case "describe_topic":
		return d.describeTopic(ctx, r)
	case "create_partitions":
		count, err := strconv.Atoi(string(r.Partitions))
		if err != nil {
			return nil, err
		}
		done, err := d.admin.UpdatePartitions(ctx, count, r.Topic)
		if err == nil {
			err = done.Error()
		}
		return object{}, err
	case "describe_configs":
		return d.describeConfigs(ctx, r)
	case "alter_configs":
		return object{}, d.alterConfigs(ctx, r)
	case "delete_records":
		to := kadm.Offsets{}
		to.AddOffset(r.Topic, r.Partition, r.Offset, -1)
		done, err := d.admin.DeleteRecords(ctx, to)
		if err == nil {
			err = done.Error()
		}
		one, _ := done.Lookup(r.Topic, r.Partition)
		return object{"low_watermark": one.LowWatermark}, err
	case "list_offsets", "offset_for_time":
		return d.listOffsets(ctx, r)
	case "describe_cluster":
		return d.describeCluster(ctx)
	case "describe_log_dirs":
		return d.describeLogDirs(ctx, r.Topic)
	}
	return nil, fmt.Errorf("no such operation: %s", r.Op)
}

func (d *driver) createTopic(ctx context.Context, r *request) error {
	partitions, replicas := int32(-1), int16(-1)
	if len(r.Partitions) > 0 {
		if err := json.Unmarshal(r.Partitions, &partitions); err != nil {
			return err
		}
	}
	if r.Replicas != nil {
		replicas = *r.Replicas
	}
	configs := map[string]*string{}
	for key, value := range r.Configs {
		configs[key] = &value
	}
	_, err := d.admin.CreateTopic(ctx, partitions, replicas, configs, r.Topic)
	return err
}

func (d *driver) describeTopic(ctx context.Context, r *request) (any, error) {
	topics, err := d.admin.ListTopics(ctx, r.Topic)
	if err == nil {
		err = topics.Error()
	}
	if err != nil {
		return nil, err
	}
	partitions := []object{}
	for _, p := range topics[r.Topic].Partitions.Sorted() {
		partitions = append(partitions, object{"partition": p.Partition, "leader": p.Leader, "replicas": len(p.Replicas), "isr": len(p.ISR)})
	}
	return object{"topic_id": topics[r.Topic].ID.String(), "partitions": partitions}, nil
}

func (d *driver) describeConfigs(ctx context.Context, r *request) (any, error) {
	describe := d.admin.DescribeTopicConfigs
	var all kadm.ResourceConfigs
	var err error
	if r.Type == "topic" {
		all, err = describe(ctx, r.Name)
	} else {
		id, bad := strconv.ParseInt(r.Name, 10, 32)
		if bad != nil {
			return nil, bad
		}
		all, err = d.admin.DescribeBrokerConfigs(ctx, int32(id))
	}
	if err != nil {
		return nil, err
	}
	one, err := all.On(r.Name, nil)
	if err == nil {
		err = one.Err
	}
	configs := object{}
	for _, c := range one.Configs {
		synonyms := []string{}
		for _, s := range c.Synonyms {
			synonyms = append(synonyms, s.Source.String())
		}
		configs[c.Key] = object{"value": c.Value, "source": c.Source.String(), "synonyms": synonyms}
	}
	return configs, err
}

func (d *driver) alterConfigs(ctx context.Context, r *request) error {
	ops := map[string]kadm.IncrementalOp{"set": kadm.SetConfig, "delete": kadm.DeleteConfig, "append": kadm.AppendConfig, "subtract": kadm.SubtractConfig}
	var changes []kadm.AlterConfig
	for _, op := range r.Ops {
		changes = append(changes, kadm.AlterConfig{Op: ops[strings.ToLower(*op[0])], Name: *op[1], Value: op[2]})
	}
	if r.Type == "topic" {
		done, err := d.admin.AlterTopicConfigs(ctx, changes, r.Name)
		return firstError(done, err)
	}
	id, err := strconv.ParseInt(r.Name, 10, 32)
	if err != nil {
		return err
	}
	done, err := d.admin.AlterBrokerConfigs(ctx, changes, int32(id))
	return firstError(done, err)
}

func firstError(done kadm.AlterConfigsResponses, err error) error {
	for _, one := range done {
		if err == nil {
			err = one.Err
		}
	}
	return err
}

func (d *driver) listOffsets(ctx context.Context, r *request) (any, error) {
	var found kadm.ListedOffsets
	var err error
	at := fmt.Sprint(r.At)
	switch {
	case r.Op == "offset_for_time":
		found, err = d.admin.ListOffsetsAfterMilli(ctx, r.Timestamp, r.Topic)
	case at == "earliest":
		found, err = d.admin.ListStartOffsets(ctx, r.Topic)
	case at == "latest":
		found, err = d.admin.ListEndOffsets(ctx, r.Topic)
	case at == "max_timestamp":
		found, err = d.admin.ListMaxTimestampOffsets(ctx, r.Topic)
	default:
		found, err = d.admin.ListOffsetsAfterMilli(ctx, int64(r.At.(float64)), r.Topic)
	}
	if err == nil {
		err = found.Error()
	}
	one, _ := found.Lookup(r.Topic, r.Partition)
	return object{"offset": one.Offset, "timestamp": one.Timestamp}, err
}

func (d *driver) describeCluster(ctx context.Context) (any, error) {
	cluster, err := d.admin.BrokerMetadata(ctx)
	if err != nil {
		return nil, err
	}
	nodes := []object{}
	for _, n := range cluster.Brokers {
		nodes = append(nodes, object{"id": n.NodeID, "host": n.Host, "port": n.Port})
	}
	return object{"cluster_id": cluster.Cluster, "controller": cluster.Controller, "nodes": nodes}, nil
}

func (d *driver) describeLogDirs(ctx context.Context, topic string) (any, error) {
	dirs, err := d.admin.DescribeAllLogDirs(ctx, nil)
	sizes := map[string]int64{}
	for _, broker := range dirs {
		broker.EachPartition(func(p kadm.DescribedLogDirPartition) {
			if p.Topic == topic {
				sizes[strconv.Itoa(int(p.Partition))] = p.Size
			}
		})
	}
	return sizes, err
}
