'use client';

import { SignInButton, UserButton, useUser } from '@clerk/nextjs';
import Script from 'next/script';
import { useCallback, useState } from 'react';
import { useEvent, usePusher } from '../lib/use-pusher';

const HERALD_URL = process.env.NEXT_PUBLIC_HERALD_URL ?? 'http://127.0.0.1:6001';

export default function Page() {
  const { isLoaded, isSignedIn, user } = useUser();
  const pusher = usePusher();
  const [titles, setTitles] = useState<string[]>([]);
  const hear = useCallback(
    ({ notification }: { notification: { title: string } }) => setTitles((titles) => [notification.title, ...titles]),
    [],
  );
  // A user's own channel: Herald lets that user in, and nobody else.
  useEvent(user ? `private-user-${user.id}` : null, 'notification.created', hear);

  if (isLoaded && !isSignedIn) {
    return (
      <main>
        <h1>Herald and Next.js</h1>
        <SignInButton />
      </main>
    );
  }
  return (
    <main>
      <header style={{ display: 'flex', gap: '1rem', alignItems: 'center' }}>
        <h1 style={{ flex: 1 }}>Herald and Next.js</h1>
        <Script type="module" src={`${HERALD_URL}/inbox.js`} />
        {pusher && <herald-inbox url={HERALD_URL} pusher={pusher} />}
        <UserButton />
      </header>
      <button onClick={() => fetch('/notify', { method: 'POST' })}>Notify me</button>
      <ul>{titles.map((title, number) => <li key={titles.length - number}>{title}</li>)}</ul>
    </main>
  );
}
