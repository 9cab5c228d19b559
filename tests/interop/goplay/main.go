// Command goplay is a scriptable peer of the Agent Directory network, made for
// interoperability tests: JSON lines in, JSON lines out. See README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// config is what the command line says.
type config struct {
	keyFile   string
	listen    listFlag
	bootstrap listFlag
	dhtMode   string
	security  string
	dirAddr   string
	ociAddr   string
	refresh   time.Duration
	mdns      bool
	noGossip  bool
	noRPC     bool
	cache     bool
}

// listFlag is a flag that may be given several times, or once with commas.
type listFlag []string

func (l *listFlag) String() string { return strings.Join(*l, ",") }

func (l *listFlag) Set(v string) error {
	for _, s := range strings.Split(v, ",") {
		if s = strings.TrimSpace(s); s != "" {
			*l = append(*l, s)
		}
	}
	return nil
}

// object is one JSON line, either way.
type object = map[string]any

// printer writes whole lines, one writer at a time.
type printer struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func newPrinter(w io.Writer) *printer {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &printer{enc: enc}
}

func (p *printer) line(o object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.enc.Encode(o); err != nil {
		fmt.Fprintln(os.Stderr, "goplay: cannot write a line:", err)
	}
}

// event reports something that happened without being asked for.
func (p *printer) event(name string, o object) {
	if o == nil {
		o = object{}
	}
	o["event"] = name
	p.line(o)
}

func main() {
	var c config
	flag.StringVar(&c.keyFile, "key", "", "ed25519 key, PKCS#8 PEM; made and written if the file is missing; without it a new key at every start")
	flag.Var(&c.listen, "listen", "multiaddr to listen on, repeatable (default /ip4/127.0.0.1/tcp/0; none: do not listen)")
	flag.Var(&c.bootstrap, "bootstrap", "multiaddr ending in /p2p/<id> to dial at start, repeatable")
	flag.StringVar(&c.dhtMode, "dht-mode", "server", "server or client")
	flag.StringVar(&c.security, "security", "tls", "tls (as a reference node), noise or both")
	flag.StringVar(&c.dirAddr, "dir-addr", "", "Directory API endpoint to advertise as /dir/<it>")
	flag.StringVar(&c.ociAddr, "oci-addr", "", "OCI repository to advertise as /oci/<it>")
	flag.DurationVar(&c.refresh, "refresh", 30*time.Second, "routing table refresh interval")
	flag.BoolVar(&c.mdns, "mdns", false, "announce and look for local peers by mDNS, as a reference node always does")
	flag.BoolVar(&c.noGossip, "no-gossip", false, "do not start GossipSub")
	flag.BoolVar(&c.noRPC, "no-rpc", false, "do not serve the RPC protocol")
	flag.BoolVar(&c.cache, "cache", false, "keep a label cache, fed by gossip and by provider records, to search in")
	flag.Parse()

	out := newPrinter(os.Stdout)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	n, err := newNode(ctx, c, out)
	if err != nil {
		out.event("fatal", object{"error": err.Error()})
		os.Exit(1)
	}
	out.event("ready", n.identity())

	done := make(chan struct{})
	go func() {
		defer close(done)
		n.commandLoop(ctx, os.Stdin)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	n.close()
}

// request holds the fields of all operations; each reads those it knows.
type request struct {
	Op        string            `json:"op"`
	Tag       any               `json:"tag"`
	TimeoutMS int               `json:"timeout_ms"`
	Addr      string            `json:"addr"`
	Peer      string            `json:"peer"`
	CID       string            `json:"cid"`
	Key       string            `json:"key"`
	Labels    []string          `json:"labels"`
	Queries   []labelQuery      `json:"queries"`
	MinScore  int               `json:"min_score"`
	Timestamp string            `json:"timestamp"`
	JSON      json.RawMessage   `json:"json"`
	Type      string            `json:"type"`
	Referrer  string            `json:"referrer_cid"`
	Created   string            `json:"created_at"`
	Notes     map[string]string `json:"annotations"`
	Protocol  string            `json:"protocol"`
	Data      string            `json:"data_b64"`
	Reply     string            `json:"reply_b64"`
	Limit     int               `json:"limit"`
	MaxBytes  int               `json:"max_bytes"`
	Chunk     int               `json:"chunk_bytes"`
	QuietMS   int               `json:"quiet_ms"`
	HalfClose bool              `json:"half_close"`
	Raw       bool              `json:"raw"`
	Hang      bool              `json:"hang"`
	Reset     bool              `json:"reset"`
	Off       bool              `json:"off"`
}

const (
	maxLine        = 64 << 20
	defaultTimeout = 20 * time.Second
)

// commandLoop answers until end of input or "quit". Untagged commands run one
// after the other; a command with a tag runs beside the rest.
func (n *node) commandLoop(ctx context.Context, in io.Reader) {
	sc := bufio.NewScanner(in)
	sc.Buffer(make([]byte, 64<<10), maxLine)

	var wg sync.WaitGroup
	defer wg.Wait()

	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var r request
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			n.out.line(object{"op": nil, "ok": false, "error": "bad command line: " + err.Error()})
			continue
		}
		if r.Op == "quit" {
			n.answer(&r, object{}, nil)
			return
		}
		if r.Tag == nil {
			n.serve(ctx, &r)
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			n.serve(ctx, &r)
		}()
	}
}

func (n *node) serve(ctx context.Context, r *request) {
	limit := defaultTimeout
	if r.TimeoutMS > 0 {
		limit = time.Duration(r.TimeoutMS) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	op, known := operations[r.Op]
	if !known {
		n.answer(r, nil, fmt.Errorf("unknown op %q", r.Op))
		return
	}
	reply, err := op(n, ctx, r)
	n.answer(r, reply, err)
}

// answer prints the one line every command gets: op, tag if any, ok, and either
// the results or error (results may stand beside an error).
func (n *node) answer(r *request, reply object, err error) {
	if reply == nil {
		reply = object{}
	}
	reply["op"] = r.Op
	reply["ok"] = err == nil
	if r.Tag != nil {
		reply["tag"] = r.Tag
	}
	if err != nil {
		reply["error"] = err.Error()
	}
	n.out.line(reply)
}
