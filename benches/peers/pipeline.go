// The peer of the pipeline bench: a producer, 3 stages of 4 goroutines, a collector, over channels of one capacity.
//
//	pipeline ITEMS CAPACITY plain|timeout
//
// `timeout` gives each item a context.WithTimeout of its own at each stage and looks at it before it sends on.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

type item struct {
	key  string
	data []byte
}

func main() {
	items, _ := strconv.Atoi(os.Args[1])
	capacity, _ := strconv.Atoi(os.Args[2])
	timeout := os.Args[3] == "timeout"
	const stages, workers = 3, 4

	root, cancel := context.WithCancel(context.Background())
	defer cancel()
	first := make(chan *item, capacity)
	in := first
	for stage := 0; stage < stages; stage++ {
		out := make(chan *item, capacity)
		var group sync.WaitGroup
		for worker := 0; worker < workers; worker++ {
			group.Add(1)
			go func(in <-chan *item, out chan<- *item) {
				defer group.Done()
				for next := range in {
					if !timeout {
						out <- act(next)
						continue
					}
					ctx, done := context.WithTimeout(root, time.Hour)
					next = act(next)
					select {
					case out <- next:
					case <-ctx.Done():
					}
					done()
				}
			}(in, out)
		}
		go func() {
			group.Wait()
			close(out)
		}()
		in = out
	}
	go func() {
		for place := 0; place < items; place++ {
			data := make([]byte, 100)
			data[0] = byte(place)
			first <- &item{key: strconv.Itoa(place), data: data}
		}
		close(first)
	}()
	seen, sum := 0, 0
	for last := range in {
		seen++
		sum += int(last.data[0])
	}
	if seen != items {
		fmt.Fprintln(os.Stderr, "items were lost:", seen, sum)
		os.Exit(1)
	}
}

//go:noinline
func act(next *item) *item {
	next.data[1]++
	return next
}
