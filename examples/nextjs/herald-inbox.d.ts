// What JSX knows of Herald's bell. The module's own types are at HERALD_URL/inbox.d.ts.
import type { DetailedHTMLProps, HTMLAttributes } from 'react';
import type Pusher from 'pusher-js';

declare module 'react' {
  namespace JSX {
    interface IntrinsicElements {
      'herald-inbox': DetailedHTMLProps<HTMLAttributes<HTMLElement>, HTMLElement> & {
        url?: string;
        'app-key'?: string;
        theme?: 'light' | 'dark';
        pusher?: Pusher;
      };
    }
  }
}
