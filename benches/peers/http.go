// The peer of the http bench: goroutines that ask one server over kept connections, each request with a deadline and up
// to 4 attempts, the answer parsed.
//
//	http REQUESTS IN_FLIGHT http://127.0.0.1:PORT
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

func main() {
	began := time.Now()
	requests, _ := strconv.Atoi(os.Args[1])
	inFlight, _ := strconv.Atoi(os.Args[2])
	base := os.Args[3]
	client := &http.Client{Transport: &http.Transport{MaxIdleConns: inFlight, MaxIdleConnsPerHost: inFlight, MaxConnsPerHost: inFlight}}
	places := make(chan int)
	var group sync.WaitGroup
	for worker := 0; worker < inFlight; worker++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for place := range places {
				if err := patient(client, fmt.Sprintf("%s/v1/patients/%d/vitals", base, place)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
			}
		}()
	}
	for place := 0; place < requests; place++ {
		places <- place
	}
	close(places)
	group.Wait()
	ideal := float64(requests) * 0.020 / float64(inFlight)
	fmt.Println("measured to_ideal", time.Since(began).Seconds()/ideal)
}

func patient(client *http.Client, url string) error {
	var err error
	for attempt := 0; attempt < 4; attempt++ {
		if err = ask(client, url); err == nil {
			return nil
		}
		time.Sleep(200 * time.Millisecond << attempt)
	}
	return err
}

func ask(client *http.Client, url string) error {
	ctx, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != 200 {
		return fmt.Errorf("answered %d", response.StatusCode)
	}
	var value interface{}
	return json.Unmarshal(body, &value)
}
