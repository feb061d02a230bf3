package main

import (
	"encoding/base64"

	"github.com/twmb/franz-go/pkg/kgo"
)

// header reads ["name", base64 or null].
func header(h []any) kgo.RecordHeader {
	out := kgo.RecordHeader{}
	if name, ok := h[0].(string); ok {
		out.Key = name
	}
	if value, ok := h[1].(string); ok {
		bytes, err := base64.StdEncoding.DecodeString(value)
		if err == nil {
			out.Value = append([]byte{}, bytes...)
		}
	}
	return out
}

// consumed is a record as the reply carries it.
func consumed(k *kgo.Record) record {
	timestamp := k.Timestamp.UnixMilli()
	out := record{Partition: &k.Partition, Offset: k.Offset, Timestamp: &timestamp, Key: k.Key, Value: k.Value, Headers: [][]any{}}
	for _, h := range k.Headers {
		var value any
		if h.Value != nil {
			value = base64.StdEncoding.EncodeToString(h.Value)
		}
		out.Headers = append(out.Headers, []any{h.Key, value})
	}
	return out
}
