// What kafka-go gets; see README.md. It has no transactions.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	partitions = 3
	records    = 120
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func say(kind string, message kafka.Message) {
	fmt.Println(kind, message.Partition, message.Offset, string(message.Value))
}

func produce(ctx context.Context, bootstrap, name string) {
	writer := &kafka.Writer{
		Addr: kafka.TCP(bootstrap), Topic: name, Compression: kafka.Lz4, RequiredAcks: kafka.RequireAll,
		BatchSize: 10, BatchTimeout: 10 * time.Millisecond,
		// The key says which partition.
		Balancer: kafka.BalancerFunc(func(message kafka.Message, _ ...int) int { return int(message.Key[0]) }),
	}
	for partition := 0; partition < partitions; partition++ {
		for from := 0; from < records/partitions; from += 10 {
			var messages []kafka.Message
			for index := from; index < from+10; index++ {
				value := fmt.Sprintf("record %d %s", index, strings.Repeat("x", index*7%90))
				messages = append(messages, kafka.Message{Key: []byte{byte(partition)}, Value: []byte(value)})
			}
			check(writer.WriteMessages(ctx, messages...))
		}
	}
	check(writer.Close())
}

func readInAGroup(ctx context.Context, client *kafka.Client, bootstrap, name string) {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{bootstrap}, GroupID: name, Topic: name, StartOffset: kafka.FirstOffset,
		// Small fetches, so that there are many.
		MinBytes: 1, MaxBytes: 1000, MaxWait: 100 * time.Millisecond,
	})
	var read []kafka.Message
	for len(read) < records {
		message, err := reader.FetchMessage(ctx)
		check(err)
		read = append(read, message)
	}
	check(reader.CommitMessages(ctx, read...))
	check(reader.Close())
	sort.Slice(read, func(one, other int) bool {
		if read[one].Partition != read[other].Partition {
			return read[one].Partition < read[other].Partition
		}
		return read[one].Offset < read[other].Offset
	})
	for _, message := range read {
		say("record", message)
	}
	offsets, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{
		GroupID: name, Topics: map[string][]int{name: {0, 1, 2}},
	})
	check(err)
	committed := offsets.Topics[name]
	sort.Slice(committed, func(one, other int) bool { return committed[one].Partition < committed[other].Partition })
	for _, each := range committed {
		fmt.Println("committed", each.Partition, each.CommittedOffset)
	}
}

func seek(ctx context.Context, bootstrap, name string) {
	for partition, offsets := range [][]int64{{7, 20, 7}, {39, 11}, {0, 38}} {
		reader := kafka.NewReader(kafka.ReaderConfig{
			Brokers: []string{bootstrap}, Topic: name, Partition: partition, MinBytes: 1, MaxBytes: 1 << 20,
			MaxWait: 100 * time.Millisecond, QueueCapacity: 1,
		})
		for _, offset := range offsets {
			check(reader.SetOffset(offset))
			message, err := reader.ReadMessage(ctx)
			check(err)
			say("seek", message)
		}
		check(reader.Close())
	}
}

func main() {
	bootstrap, name := os.Args[1], os.Args[2]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := &kafka.Client{Addr: kafka.TCP(bootstrap)}
	topic := kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: 1}
	created, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
	check(err)
	check(created.Errors[name])
	produce(ctx, bootstrap, name)
	readInAGroup(ctx, client, bootstrap, name)
	seek(ctx, bootstrap, name)
	metadata, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{name}})
	check(err)
	for _, broker := range metadata.Brokers {
		host := broker.Host
		if ip := net.ParseIP(host); ip != nil {
			host = ip.String()
		}
		fmt.Println("node", host, strconv.Itoa(broker.Port))
	}
	deleted, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{name}})
	check(err)
	check(deleted.Errors[name])
}
