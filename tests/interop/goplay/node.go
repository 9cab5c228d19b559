package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	gorpc "github.com/libp2p/go-libp2p-gorpc"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	dhtPrefix   = protocol.ID("dir") // the library adds /kad/1.0.0; there is no slash in front
	mdnsService = "agntcy-dir-local-discovery"
	valueMaxAge = 48 * time.Hour
	connLow     = 50
	connHigh    = 200
	connGrace   = 2 * time.Minute
)

// node is one peer: host, DHT, topic, RPC both ways.
type node struct {
	out    *printer
	host   host.Host
	dht    *dht.IpfsDHT
	gossip *gossip
	shelf  *shelf
	cache  *labelCache // nil without -cache
	server *gorpc.Server
	client *gorpc.Client
	stop   context.CancelFunc
}

func newNode(parent context.Context, c config, out *printer) (*node, error) {
	ctx, stop := context.WithCancel(parent)
	n := &node{out: out, shelf: newShelf(), stop: stop}
	if err := n.start(ctx, c); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *node) start(ctx context.Context, c config) error {
	boot, err := bootstrapPeers(c.bootstrap)
	if err != nil {
		return fmt.Errorf("bad -bootstrap: %w", err)
	}
	opts, err := hostOptions(c)
	if err != nil {
		return err
	}
	if n.host, err = libp2p.New(opts...); err != nil {
		return err
	}
	if err := n.watch(ctx); err != nil {
		return err
	}

	if c.cache {
		n.cache = newLabelCache()
	}

	store := dssync.MutexWrap(ds.NewMapDatastore())
	manager, err := records.NewProviderManager(ctx, n.host.ID(), n.host.Peerstore(), store)
	if err != nil {
		return err
	}
	mode := dht.ModeServer
	switch c.dhtMode {
	case "server":
	case "client":
		mode = dht.ModeClient
	default:
		return fmt.Errorf("bad -dht-mode %q", c.dhtMode)
	}
	n.dht, err = dht.New(ctx, n.host,
		dht.Datastore(store),
		dht.ProtocolPrefix(dhtPrefix),
		dht.Validator(labelValidator()),
		dht.MaxRecordAge(valueMaxAge),
		dht.Mode(mode),
		dht.BootstrapPeers(boot...),
		dht.RoutingTableRefreshPeriod(c.refresh),
		dht.ProviderStore(&providers{ProviderManager: manager, self: n.host.ID(), out: n.out, cache: n.cache}),
	)
	if err != nil {
		return err
	}
	table := n.dht.RoutingTable()
	added, removed := table.PeerAdded, table.PeerRemoved
	table.PeerAdded = func(p peer.ID) { added(p); n.out.event("table_added", object{"peer": p.String()}) }
	table.PeerRemoved = func(p peer.ID) { removed(p); n.out.event("table_removed", object{"peer": p.String()}) }

	if c.noRPC {
		n.client = gorpc.NewClient(n.host, rpcProtocol)
	} else {
		n.server = gorpc.NewServer(n.host, rpcProtocol)
		if err := n.server.Register(&RPCAPI{shelf: n.shelf, out: n.out}); err != nil {
			return err
		}
		n.client = gorpc.NewClient(n.host, rpcProtocol)
	}
	if n.cache != nil {
		go n.readProviders(ctx)
	}
	if !c.noGossip {
		if err := n.startGossip(ctx); err != nil {
			return err
		}
	}
	if c.mdns {
		if err := mdns.NewMdnsService(n.host, mdnsService, found{n, ctx}).Start(); err != nil {
			return fmt.Errorf("mDNS: %w", err)
		}
	}
	if err := n.dht.Bootstrap(ctx); err != nil {
		return err
	}
	for _, b := range boot {
		if err := n.host.Connect(ctx, b); err != nil {
			n.out.event("bootstrap_failed", object{"peer": b.ID.String(), "error": err.Error()})
		}
	}
	return nil
}

// found dials what mDNS shows.
type found struct {
	n   *node
	ctx context.Context
}

func (f found) HandlePeerFound(p peer.AddrInfo) {
	f.n.out.event("mdns_found", object{"peer": p.ID.String(), "addrs": addrTexts(p.Addrs)})
	_ = f.n.host.Connect(f.ctx, p)
}

func bootstrapPeers(texts []string) ([]peer.AddrInfo, error) {
	addrs := make([]ma.Multiaddr, 0, len(texts))
	for _, t := range texts {
		a, err := ma.NewMultiaddr(t)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, a)
	}
	return peer.AddrInfosFromP2pAddrs(addrs...)
}

func hostOptions(c config) ([]libp2p.Option, error) {
	key, err := loadKey(c.keyFile)
	if err != nil {
		return nil, err
	}
	manager, err := connmgr.NewConnManager(connLow, connHigh, connmgr.WithGracePeriod(connGrace))
	if err != nil {
		return nil, err
	}
	var extra []ma.Multiaddr
	for _, e := range []struct{ name, value string }{{"dir", c.dirAddr}, {"oci", c.ociAddr}} {
		if e.value == "" {
			continue
		}
		a, err := endpointAddr(e.name, e.value)
		if err != nil {
			return nil, err
		}
		extra = append(extra, a)
	}
	opts := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.DefaultTransports,
		libp2p.DefaultMuxers,
		libp2p.ConnectionManager(manager),
		libp2p.EnableNATService(),
		libp2p.EnableHolePunching(),
		libp2p.AddrsFactory(func(a []ma.Multiaddr) []ma.Multiaddr {
			return append(a, extra...)
		}),
	}
	switch {
	case len(c.listen) == 0:
		opts = append(opts, libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	case len(c.listen) == 1 && c.listen[0] == "none":
		opts = append(opts, libp2p.NoListenAddrs)
	default:
		opts = append(opts, libp2p.ListenAddrStrings(c.listen...))
	}
	switch c.security {
	case "tls":
		opts = append(opts, libp2p.Security(libp2ptls.ID, libp2ptls.New))
	case "noise":
		opts = append(opts, libp2p.Security(noise.ID, noise.New))
	case "both":
		opts = append(opts, libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.Security(noise.ID, noise.New))
	default:
		return nil, fmt.Errorf("bad -security %q", c.security)
	}
	return opts, nil
}

// watch turns connection and identify news into events.
func (n *node) watch(ctx context.Context) error {
	n.host.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			s := c.ConnState()
			n.out.event("peer_connected", object{
				"peer": c.RemotePeer().String(), "addr": c.RemoteMultiaddr().String(),
				"direction": c.Stat().Direction.String(),
				"security":  string(s.Security), "muxer": string(s.StreamMultiplexer), "early_muxer": s.UsedEarlyMuxerNegotiation,
			})
		},
		DisconnectedF: func(_ network.Network, c network.Conn) {
			n.out.event("peer_disconnected", object{"peer": c.RemotePeer().String(), "addr": c.RemoteMultiaddr().String()})
		},
	})
	sub, err := n.host.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerIdentificationFailed),
	})
	if err != nil {
		return err
	}
	go func() {
		defer sub.Close()
		for {
			select {
			case <-ctx.Done():
				return
			case e, open := <-sub.Out():
				if !open {
					return
				}
				switch e := e.(type) {
				case event.EvtPeerIdentificationCompleted:
					o := object{
						"peer": e.Peer.String(), "agent": e.AgentVersion, "protocol_version": e.ProtocolVersion,
						"protocols": protocol.ConvertToStrings(e.Protocols), "addrs": addrTexts(e.ListenAddrs),
						"signed_record": e.SignedPeerRecord != nil,
					}
					if e.ObservedAddr != nil {
						o["observed"] = e.ObservedAddr.String()
					}
					n.out.event("peer_identified", o)
				case event.EvtPeerIdentificationFailed:
					n.out.event("identify_failed", object{"peer": e.Peer.String(), "error": fmt.Sprint(e.Reason)})
				}
			}
		}
	}()
	return nil
}

// identity is what the node says of itself.
func (n *node) identity() object {
	var full []string
	for _, a := range n.host.Addrs() {
		if len(endpoints([]ma.Multiaddr{a})) == 0 {
			full = append(full, a.String()+"/p2p/"+n.host.ID().String())
		}
	}
	o := object{"peer": n.host.ID().String(), "addrs": addrTexts(n.host.Addrs()), "dial": full}
	if key := n.host.Peerstore().PubKey(n.host.ID()); key != nil {
		if pb, err := crypto.MarshalPublicKey(key); err == nil {
			o["public_key_b64"] = base64.StdEncoding.EncodeToString(pb)
		}
	}
	return o
}

func (n *node) close() {
	n.stop()
	if n.dht != nil {
		_ = n.dht.Close()
	}
	if n.host != nil {
		_ = n.host.Close()
	}
}

// rawStream writes bytes to a peer and collects what comes back. Negotiated: the
// named protocol is agreed on first. Raw: the bytes start with the multistream
// header, nothing is added.
func (n *node) rawStream(ctx context.Context, p peer.ID, r *request, data []byte) (object, error) {
	var s network.Stream
	var err error
	if r.Raw {
		s, err = n.host.Network().NewStream(ctx, p)
	} else {
		s, err = n.host.NewStream(ctx, p, protocol.ID(r.Protocol))
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Reset() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = s.SetDeadline(deadline)
	}
	chunk := r.Chunk
	if chunk <= 0 {
		chunk = max(len(data), 1)
	}
	for part := range slices.Chunk(data, chunk) {
		// A peer may have refused already; what it said before that still counts.
		if _, err := s.Write(part); err != nil {
			break
		}
	}
	if r.Reset {
		return object{"end": "reset by us"}, s.Reset()
	}
	if r.HalfClose {
		if err := s.CloseWrite(); err != nil {
			return nil, err
		}
	}
	got, end := readUntilQuiet(ctx, s, r)
	return object{"data_b64": base64.StdEncoding.EncodeToString(got), "bytes": len(got), "end": end}, nil
}

// How a raw stream ended, as the README lists them.
const (
	endClosed   = "closed by the peer"
	endReset    = "reset by the peer"
	endQuiet    = "still open, nothing more came"
	endDeadline = "still open at the deadline"
	endFull     = "max_bytes reached"
)

// readUntilQuiet reads to the end of the stream, to max_bytes, or to the first
// pause of quiet_ms; without quiet_ms the deadline of the command is the limit.
func readUntilQuiet(ctx context.Context, s network.Stream, r *request) ([]byte, string) {
	limit := r.MaxBytes
	if limit <= 0 {
		limit = 16 << 20
	}
	quiet := time.Duration(r.QuietMS) * time.Millisecond
	got, buf := []byte{}, make([]byte, 32<<10)
	for {
		if quiet > 0 {
			until := time.Now().Add(quiet)
			if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
				until = deadline
			}
			_ = s.SetReadDeadline(until)
		}
		n, err := s.Read(buf[:min(len(buf), limit-len(got))])
		got = append(got, buf[:n]...)
		var timeout interface{ Timeout() bool }
		switch {
		case len(got) >= limit:
			return got, endFull
		case err == nil:
		case errors.Is(err, io.EOF):
			return got, endClosed
		case errors.Is(err, network.ErrReset):
			return got, endReset
		case errors.As(err, &timeout) && timeout.Timeout() && quiet > 0 && ctx.Err() == nil:
			return got, endQuiet
		case errors.As(err, &timeout) && timeout.Timeout():
			return got, endDeadline
		default:
			return got, err.Error()
		}
	}
}

// handleRaw replaces the handler of a protocol: report what arrives, then answer
// with fixed bytes, or reset, or stay silent.
func (n *node) handleRaw(r *request, reply []byte) {
	id, reset, hang := protocol.ID(r.Protocol), r.Reset, r.Hang
	wait := 500 * time.Millisecond
	if r.TimeoutMS > 0 {
		wait = time.Duration(r.TimeoutMS) * time.Millisecond
	}
	if r.Off {
		n.host.RemoveStreamHandler(id)
		return
	}
	n.host.SetStreamHandler(id, func(s network.Stream) {
		_ = s.SetReadDeadline(time.Now().Add(wait))
		got, err := io.ReadAll(io.LimitReader(s, 16<<20))
		n.out.event("stream_in", object{
			"peer": s.Conn().RemotePeer().String(), "protocol": string(id),
			"data_b64": base64.StdEncoding.EncodeToString(got), "closed": err == nil,
		})
		switch {
		case reset:
			_ = s.Reset()
		case hang:
			_ = s.SetReadDeadline(time.Time{})
			_, _ = io.Copy(io.Discard, s)
		default:
			_, _ = s.Write(reply)
			_ = s.Close()
		}
	})
}
