// Command reference reads batches at random through the cache of kafka-go's package records, in memory, and prints how many
// nanoseconds that took: `reference BATCHES READS`. The batches are as many and as large as those beside which it is measured, and
// were read once before, so that every read is a hit.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/segmentio/kafka-go/records"
)

const topic = "topic"

// One record makes a batch of 200 to 300 bytes, as the batches beside it are.
const valueBytes = 190

// broker answers a fetch with the batch at its offset; a batch has one record.
type broker struct{}

func (broker) RoundTrip(_ context.Context, _ net.Addr, req kafka.Request) (kafka.Response, error) {
	request, ok := req.(*fetch.Request)
	if !ok {
		return nil, errors.New("only fetches are answered")
	}
	offset := request.Topics[0].Partitions[0].FetchOffset
	record := protocol.Record{
		Offset: offset,
		Time:   time.UnixMilli(1_700_000_000_000),
		Value:  protocol.NewBytes(make([]byte, valueBytes)),
	}
	batch := &protocol.RecordBatch{
		PartitionLeaderEpoch: -1,
		BaseOffset:           offset,
		ProducerID:           -1,
		ProducerEpoch:        -1,
		BaseSequence:         -1,
		NumRecords:           1,
		Records:              protocol.NewRecordReader(record),
	}
	return &fetch.Response{Topics: []fetch.ResponseTopic{{
		Topic: topic,
		Partitions: []fetch.ResponsePartition{{
			HighWatermark: 1 << 40,
			RecordSet:     protocol.RecordSet{Version: 2, Records: batch},
		}},
	}}}, nil
}

func request(offset int64) *fetch.Request {
	return &fetch.Request{ReplicaID: -1, MinBytes: 1, MaxBytes: 1, Topics: []fetch.RequestTopic{{
		Topic:      topic,
		Partitions: []fetch.RequestPartition{{FetchOffset: offset, PartitionMaxBytes: 1}},
	}}}
}

func read(cache *records.Cache, offset int64) error {
	res, err := cache.RoundTrip(context.Background(), kafka.TCP("broker"), request(offset))
	if err != nil {
		return err
	}
	partition := res.(*fetch.Response).Topics[0].Partitions[0]
	if partition.RecordSet.Records == nil {
		return fmt.Errorf("offset %d: no records", offset)
	}
	if closer, ok := partition.RecordSet.Records.(interface{ Close() error }); ok {
		return closer.Close()
	}
	return nil
}

func run(batches, reads int64) (time.Duration, error) {
	cache := &records.Cache{SizeLimit: 8 << 30, Storage: records.NewStorage(), Transport: broker{}}
	for offset := int64(0); offset < batches; offset++ {
		if err := read(cache, offset); err != nil {
			return 0, err
		}
	}

	random := rand.New(rand.NewSource(11))
	before := cache.Stats().Hits
	started := time.Now()
	for range reads {
		if err := read(cache, random.Int63n(batches)); err != nil {
			return 0, err
		}
	}
	took := time.Since(started)
	if hits := cache.Stats().Hits - before; hits != reads {
		return 0, fmt.Errorf("%d of %d reads were hits", hits, reads)
	}
	return took, nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: reference BATCHES READS")
		os.Exit(2)
	}
	var numbers [2]int64
	for at, text := range os.Args[1:] {
		number, err := strconv.ParseInt(text, 10, 64)
		if err != nil || number < 1 {
			fmt.Fprintf(os.Stderr, "%q is no number of batches or reads\n", text)
			os.Exit(2)
		}
		numbers[at] = number
	}
	took, err := run(numbers[0], numbers[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(took.Nanoseconds())
}
