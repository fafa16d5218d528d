// Creates a notification for whoever asks, with the Pusher library that the app has anyway.
import { auth } from '@clerk/nextjs/server';
import Pusher from 'pusher';

const { hostname, port, protocol } = new URL(process.env.NEXT_PUBLIC_HERALD_URL ?? 'http://127.0.0.1:6001');

export async function POST(): Promise<Response> {
  const { userId } = await auth();
  if (!userId) return new Response(null, { status: 401 });
  const pusher = new Pusher({
    appId: process.env.PUSHER_APP_ID ?? 'app-id',
    key: process.env.NEXT_PUBLIC_PUSHER_KEY ?? 'app-key',
    secret: process.env.PUSHER_SECRET ?? 'app-secret',
    host: hostname,
    port: port || (protocol === 'https:' ? '443' : '80'),
    useTLS: protocol === 'https:',
  });
  const body = { to: { user_ids: [userId] }, type: 'example.hello', title: `Hello at ${new Date().toLocaleTimeString()}` };
  // The library takes an object and makes JSON of it; its types say string.
  const made = await pusher.post({ path: '/notifications', body: body as unknown as string, params: {} });
  return new Response(null, { status: made.ok ? 204 : 502 });
}
