'use client';

// One Pusher for the whole app, authorized with Clerk's session. Herald checks the token itself: there is no auth route to write.
import { useAuth } from '@clerk/nextjs';
import Pusher from 'pusher-js';
import { useEffect, useState } from 'react';

const HERALD_URL = process.env.NEXT_PUBLIC_HERALD_URL ?? 'http://127.0.0.1:6001';
const KEY = process.env.NEXT_PUBLIC_PUSHER_KEY ?? 'app-key';

type GetToken = () => Promise<string | null>;

// Of the session that is active now: a token lives a minute, so each request takes a fresh one.
let getToken: GetToken = async () => null;
let pusher: Pusher | null = null;

interface Asked { socketId: string; channelName?: string }

function handler(path: string) {
  return async ({ socketId, channelName }: Asked, callback: (error: Error | null, data: any) => void) => {
    try {
      const response = await fetch(HERALD_URL + path, {
        method: 'POST',
        headers: { 'Content-Type': 'application/x-www-form-urlencoded', Authorization: `Bearer ${await getToken()}` },
        body: new URLSearchParams({ socket_id: socketId, ...(channelName ? { channel_name: channelName } : {}) }),
      });
      if (!response.ok) throw new Error(`Herald answered ${response.status}`);
      callback(null, await response.json());
    } catch (error) {
      callback(error as Error, null);
    }
  };
}

function create(): Pusher {
  const { hostname, port, protocol } = new URL(HERALD_URL);
  const isSecure = protocol === 'https:';
  return new Pusher(KEY, {
    cluster: 'herald', // not used, but pusher-js wants one
    wsHost: hostname,
    wsPort: Number(port) || 80,
    wssPort: Number(port) || 443,
    forceTLS: isSecure,
    enabledTransports: ['ws', 'wss'],
    channelAuthorization: { customHandler: handler('/pusher/auth'), transport: 'ajax', endpoint: '' },
    userAuthentication: { customHandler: handler('/pusher/user-auth'), transport: 'ajax', endpoint: '' },
  });
}

/**
 * The app's Pusher while somebody is signed in. When a session ends, Herald closes with 4009, after which pusher-js stays away: the next
 * session, which has another id, connects again, and all subscriptions come back.
 */
export function usePusher(): Pusher | null {
  const { isSignedIn, sessionId, getToken: fresh } = useAuth();
  const [current, setCurrent] = useState<Pusher | null>(null);
  getToken = fresh;
  useEffect(() => {
    if (!isSignedIn) return;
    pusher ??= create();
    pusher.connect(); // nothing happens where it is connected
    setCurrent(pusher);
    return () => {
      pusher?.disconnect();
      setCurrent(null);
    };
  }, [isSignedIn, sessionId]);
  return current;
}

/** Hears the events of a channel while the component is shown. */
export function useEvent<T>(channel: string | null, event: string, hear: (data: T) => void): void {
  const current = usePusher();
  useEffect(() => {
    if (!current || !channel) return;
    const subscription = current.subscribe(channel);
    subscription.bind(event, hear);
    return () => {
      subscription.unbind(event, hear);
      current.unsubscribe(channel);
    };
  }, [current, channel, event, hear]);
}
